import type { Agent, ProposedFile, Verdict } from "#agents";
import { type NewChange, putBlobs, readBlobs } from "#database/projects/index.ts";
import type { Delta } from "#database/projects/types.ts";
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

/** Let the agent's own rules judge its result, with the project before and after to try things on. */
export async function judge(
  agent: Agent,
  { base, revision }: Pick<Workspace, "base" | "revision">,
  result: Result,
  bench: Bench,
  { database, config }: Pick<RunDeps, "database" | "config">,
): Promise<Verdict> {
  const place = checksPlace(database.db, config, bench);
  await using trees = new CheckTrees(place, [...base.values()], result.deltas, revision);
  const files = await proposedFiles(result.files, database);
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

async function proposedFiles(
  files: readonly ChangedFile[],
  database: RunDeps["database"],
): Promise<ProposedFile[]> {
  const hashes = files.flatMap(({ base }) => (base === null ? [] : [base.blob_hash]));
  const before = await readBlobs(database.db, hashes);
  return files.map(({ path, base, content }) => ({
    path,
    before: base === null ? null : (before.get(base.blob_hash.toString("hex")) ?? null),
    after: content,
  }));
}

function summaryOf(prompt: string): string {
  const line = prompt.trim().split(/\r?\n/, 1)[0] ?? "";
  return line.length > MAX_SUMMARY_CHARS ? `${line.slice(0, MAX_SUMMARY_CHARS - 1)}…` : line;
}
