import type { Agent, ProposedFile } from "#agents";
import { type NewChange, putBlobs, readBlobs } from "#database/projects/index.ts";
import { newId } from "#platform/ids.ts";
import type { ChangedFile, Collected } from "#workspaces/collect.ts";
import type { RunDeps, RunEnd, RunningTask } from "./run-deps.ts";

const MAX_SUMMARY_CHARS = 120;

/**
 * Turn what the agent left into a change for review, if its own rules call it a result; contents are stored,
 * the change itself is stored with the task's end.
 */
export async function propose(
  task: RunningTask,
  agent: Agent,
  result: { readonly collected: Collected; readonly revision: number; readonly answer: string },
  { database }: Pick<RunDeps, "database">,
): Promise<RunEnd> {
  const { files } = result.collected;
  const problems = agent.validate({ files: await proposedFiles(files, database), answer: result.answer });
  if (problems.length > 0) {
    const error = {
      code: "ResultInvalid",
      message: `The result was refused: ${problems.join(" ")}`,
      hint: "Dispatch the task again and say what to avoid.",
    };
    return { kind: "finish", state: "failed", error };
  }
  if (files.length === 0) return { kind: "finish", state: "completed" };
  const contents = files.flatMap((file) => (file.content === null ? [] : [file.content]));
  const hashes = (await putBlobs(database.db, contents)).values();
  const change: NewChange = {
    id: newId("change"),
    project_id: task.project_id,
    task_id: task.id,
    author: agent.name,
    base_revision: result.revision,
    summary: summaryOf(task.prompt),
    files: files.map(({ path, base, content, executable }) => ({
      path,
      base_hash: base?.blob_hash ?? null,
      new_hash: content === null ? null : (hashes.next().value ?? null),
      executable,
    })),
  };
  return { kind: "finish", state: "completed", change };
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
