import { type Agent, PLAN_PROMPT } from "#agents";
import { editorContext, projectNotes, sessionPreface, withContext } from "#agents/context/index.ts";
import type { Db } from "#database";
import { decodeText, getProject, isText, overlayChanges, readFile } from "#database/projects/index.ts";
import type { Delta } from "#database/projects/types.ts";
import { sessionHistory } from "#database/queue/index.ts";
import { AppError } from "#schemas";
import type { RunDeps, RunningTask } from "./run-deps.ts";

/** Tasks of a session that are looked at for its history; how much of them is told goes by tokens. */
const MAX_HISTORY = 50;

const NOTES = "AGENTS.md";
const MAX_NOTES_BYTES = 1024 * 1024;

/** What an agent is given to start with. */
export interface Briefing {
  /** The project's revision it works on. */
  readonly revision: number;
  /** What lies over the project's files: the changes it builds on or has to resolve. */
  readonly overlay: readonly Delta[];
  /** Paths of it where changes collide. */
  readonly colliding: readonly string[];
  /** The whole prompt: what was before, what the user looks at, what is asked. */
  readonly text: string;
  /** For those who watch. */
  readonly notes: readonly string[];
}

/** Put a task's briefing together. @throws AppError NotFound when its project or a change it needs is gone. */
export async function briefingOf(
  task: RunningTask,
  agent: Agent,
  { database, config }: Pick<RunDeps, "database" | "config">,
): Promise<Briefing> {
  const { db } = database;
  const { head_revision: revision } = await getProject(db, task.project_id);
  const { project_id } = task;
  const changes = task.resolves === null ? task.builds_on : [...task.builds_on, task.resolves];
  const place = { project_id, revision, quota: config.quota };
  const { files: overlay, conflicts } = await overlayChanges(db, place, changes);
  const history = task.continues === null ? [] : await sessionHistory(db, task.continues, MAX_HISTORY);
  const text = withContext(
    task.prompt,
    // opencode reads the project's notes by itself.
    task.runner === "opencode" ? "" : projectNotes(await notesOf(db, project_id)),
    sessionPreface(
      history.map(({ files: changedFiles, ...turn }) => ({ ...turn, changedFiles })),
      agent.context.historyTokens,
    ),
    agent.context.editor && task.context !== null ? editorContext(task.context) : "",
    conflictText(conflicts),
    task.may_plan ? PLAN_PROMPT : "",
  );
  return {
    revision,
    overlay,
    colliding: conflicts.map(({ path }) => path),
    text,
    notes: conflicts.map(({ path }) => `${path}: two changes collide here; the agent is to resolve it.`),
  };
}

/** The project's AGENTS.md; empty where there is none that could be read. */
async function notesOf(db: Db, project_id: string): Promise<string> {
  const found = await readFile(db, project_id, NOTES).catch((error: unknown) => {
    if (error instanceof AppError && error.code === "NotFound") return undefined;
    throw error;
  });
  if (found === undefined || found.content.length > MAX_NOTES_BYTES) return "";
  return isText(found.content) ? decodeText(found.content) : "";
}

function conflictText(conflicts: readonly { path: string; kind: string; merged?: string }[]): string {
  if (conflicts.length === 0) return "";
  const lines = conflicts.map(({ path, kind, merged }) =>
    merged === undefined
      ? `- ${path}: ${kind.replaceAll("_", "/")}; it has the project's present content`
      : `- ${path}: both sides stand between conflict markers`,
  );
  return ["Two changes collide in these files. Keep what both meant, and leave no marker:", ...lines].join(
    "\n",
  );
}
