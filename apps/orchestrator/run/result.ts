import type { Agent, ProposedFile, Verdict } from "#agents";
import { type NewChange, putBlobs, readBlobs } from "#database/projects/index.ts";
import { sameVersion } from "#database/projects/three-way.ts";
import type { Delta, FileVersion } from "#database/projects/types.ts";
import { newId } from "#platform/ids.ts";
import { type Bench, CheckTrees, checksPlace } from "#workspaces/checks.ts";
import type { ChangedFile } from "#workspaces/collect.ts";
import type { Workspace } from "#workspaces/workspace.ts";
import type { RunDeps, RunningTask } from "./run-deps.ts";

const MAX_SUMMARY_CHARS = 120;

/** What a turn came to: the files it changed, their contents stored, and the last thing the agent said. */
export interface Result {
  readonly files: readonly ChangedFile[];
  readonly deltas: readonly Delta[];
  readonly answer: string;
}

/** Store the contents, so that they can be laid out to be tried, and proposed. */
export async function storeResult(
  files: readonly ChangedFile[],
  answer: string,
  { database }: Pick<RunDeps, "database">,
): Promise<Result> {
  const contents = files.flatMap((file) => (file.content === null ? [] : [file.content]));
  const hashes = (await putBlobs(database.db, contents)).values();
  const deltas = files.map(({ path, content, executable }) => {
    if (content === null) return { path, to: null };
    const blob_hash = hashes.next().value;
    if (blob_hash === undefined) throw new Error("a content was stored without a name");
    return { path, to: { blob_hash, size: content.length, executable } };
  });
  return { files, deltas, answer };
}

/**
 * Let the agent's own rules judge what it did itself, with the project as it got it and as it left it to try things
 * on: what the changes it builds on did was judged by the rules of those who made them.
 */
export async function judge(
  agent: Agent,
  { base, start, revision }: Pick<Workspace, "base" | "start" | "revision">,
  result: Result,
  bench: Bench,
  { database, config }: Pick<RunDeps, "database" | "config">,
): Promise<Verdict> {
  const place = checksPlace(database.db, config, bench);
  const deltas = ownDeltas(result.deltas, base, start);
  await using trees = new CheckTrees(place, [...start.values()], deltas, revision);
  const files = await proposedFiles(deltas, start, result, database);
  return await agent.validate({ files, answer: result.answer }, trees);
}

/** The change for review; null when nothing was changed. */
export function changeOf(
  task: RunningTask,
  agent: Agent,
  result: Result,
  revision: number,
): NewChange | null {
  if (result.files.length === 0) return null;
  return {
    id: newId("change"),
    project_id: task.project_id,
    task_id: task.id,
    author: agent.name,
    base_revision: revision,
    summary: summaryOf(task.prompt),
    builds_on: task.builds_on,
    ...(task.resolves === null ? {} : { resolves: task.resolves }),
    files: result.files.map(({ path, base, executable }, index) => ({
      path,
      base_hash: base?.blob_hash ?? null,
      new_hash: result.deltas[index]?.to?.blob_hash ?? null,
      executable,
    })),
  };
}

/** From what the agent got to what it left; that the result leaves out, it put back as the project has it. */
function ownDeltas(
  result: readonly Delta[],
  base: Workspace["base"],
  start: Workspace["start"],
): readonly Delta[] {
  const left = new Map(result.map(({ path, to }) => [path, to]));
  for (const path of new Set([...base.keys(), ...start.keys()])) {
    if (!left.has(path) && base.get(path) !== start.get(path)) left.set(path, base.get(path) ?? null);
  }
  return [...left]
    .filter(([path, to]) => !sameVersion(start.get(path) ?? null, to))
    .map(([path, to]) => ({ path, to }))
    .sort((one, other) => (one.path < other.path ? -1 : 1));
}

async function proposedFiles(
  deltas: readonly Delta[],
  start: Workspace["start"],
  result: Result,
  database: RunDeps["database"],
): Promise<ProposedFile[]> {
  const sides = deltas.map(({ path, to }) => ({ path, from: start.get(path) ?? null, to }));
  const atHand = new Map<string, Uint8Array | null>(
    result.deltas.flatMap(({ to }, index) =>
      to === null ? [] : [[nameOf(to), result.files[index]?.content ?? null]],
    ),
  );
  const others = sides
    .flatMap(({ from, to }) => [from, to])
    .flatMap((version) => (version === null || atHand.has(nameOf(version)) ? [] : [version.blob_hash]));
  const stored = await readBlobs(database.db, others);
  const contentOf = (version: FileVersion | null) =>
    version === null ? null : (atHand.get(nameOf(version)) ?? stored.get(nameOf(version)) ?? null);
  return sides.map(({ path, from, to }) => ({ path, before: contentOf(from), after: contentOf(to) }));
}

function nameOf({ blob_hash }: FileVersion): string {
  return blob_hash.toString("hex");
}

function summaryOf(prompt: string): string {
  const line = prompt.trim().split(/\r?\n/, 1)[0] ?? "";
  return line.length > MAX_SUMMARY_CHARS ? `${line.slice(0, MAX_SUMMARY_CHARS - 1)}…` : line;
}
