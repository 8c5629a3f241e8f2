import type { ChangeRow } from "#database";
import {
  alreadyDecided,
  type ChangeFile,
  changeFiles,
  decodeText,
  type FileVersion,
  getOwnChange,
  getOwnProject,
  type Hunk,
  hunksOf,
  isDivisible,
  isText,
  listChanges,
  MAX_DIVIDED_FILES,
  previewChange,
  type Reverted,
  readBlobs,
  rejectChange,
  revertChange,
} from "#database/projects/index.ts";
import { AppError } from "#schemas";
import { isAgentConfiguration } from "#workspaces/ignored.ts";
import type { Context, HandlersOf } from "../handler.ts";
import { dispatchTask } from "./agent-dispatch.ts";
import { type Content, decodeContent, encodeContent } from "./content.ts";
import { land } from "./land.ts";

/** A change is shown in one answer: a longer content, and what comes after so much in all, is left out. */
const MAX_SHOWN_BYTES = 1024 * 1024;
const MAX_SHOWN_TOTAL = 8 * 1024 * 1024;
/** Somebody waits for it with a review that is open. */
const RESOLVE_PRIORITY = 6;
const RESOLVE_PROMPT =
  "A change collides with what the project has become, or does not work together with it. The files in your working directory are the project with the change laid over it. Resolve what collides so that both sides keep what they meant, and see that the project's own checks pass.";

export const changeHandlers: HandlersOf<"change."> = {
  "change.get": async ({ caller, database }, { change_id }) => {
    const change = await getOwnChange(database.db, change_id, caller.user_id);
    const { files, conflicts, current_revision } = await previewChange(database.db, change);
    const versions = [
      ...conflicts.map(({ current }) => current),
      ...files.flatMap(({ before, after }) => [before, after]),
    ];
    const contents = await contentsOf({ database }, versions);
    const show = (version: FileVersion | null) => shown(version, contents);
    const hunks = hunksOfFiles(files, contents);
    return {
      ...summaryOf(change),
      current_revision,
      files: files.map(({ path, before, after }) => ({
        path,
        status: before === null ? "added" : after === null ? "deleted" : "modified",
        before: show(before),
        after: show(after),
        ...hunks.get(path),
      })),
      conflicts: conflicts.map(({ current, ...conflict }) => ({ ...conflict, current: show(current) })),
    };
  },

  "change.list": async ({ caller, database }, { project_id, state, cursor, limit }) => {
    await getOwnProject(database.db, project_id, caller.user_id);
    const page = await listChanges(database.db, { project_id, state, cursor, limit });
    const changes = page.changes.map(summaryOf);
    return page.next_cursor === undefined ? { changes } : { changes, next_cursor: page.next_cursor };
  },

  "change.accept": async (context, params) => {
    const { caller, database, config } = context;
    const { change_id, current_revision, hunks, resolutions = [], force } = params;
    await getOwnChange(database.db, change_id, caller.user_id);
    const decided = resolutions.map(({ path, content, encoding }, index) => ({
      path,
      content:
        content === null ? null : decodeContent(content, encoding, `params.resolutions[${index}].content`),
    }));
    const by = { decided_by: caller.user_id, quota: config.quota };
    const acceptance = { change_id, ...by, hunks, resolutions: decided, current_revision };
    const accepted = await land(context, acceptance, force);
    return { change_id, state: "accepted", ...accepted };
  },

  "change.reject": async ({ caller, database }, { change_id }) => {
    await getOwnChange(database.db, change_id, caller.user_id);
    await rejectChange(database, { change_id, decided_by: caller.user_id });
    return { change_id, state: "rejected" };
  },

  "change.resolve": async (context, params) => {
    const { change_id, agent, prompt = RESOLVE_PROMPT, model, runner, idempotency_key } = params;
    const change = await getOwnChange(context.database.db, change_id, context.caller.user_id);
    if (change.state !== "proposed") throw alreadyDecided(change);
    await refuseConfiguration(context, change);
    const { project_id } = change;
    const task = { project_id, model, runner, idempotency_key, priority: RESOLVE_PRIORITY };
    const bare = { network: false, may_plan: false, agent_config: false };
    const { task_id, state } = await dispatchTask(
      context,
      { ...task, ...bare },
      { agent, prompt, resolves: change_id },
    );
    return { task_id, state };
  },

  "change.revert": async ({ caller, database, config }, { change_id }) => {
    await getOwnChange(database.db, change_id, caller.user_id);
    const by = { author: caller.username, decided_by: caller.user_id };
    return revertedView(await revertChange(database, { change_id, ...by, quota: config.quota }));
  },
};

/** Agents neither get nor write it, so it would be lost. @throws AppError InvalidParams. */
async function refuseConfiguration({ database }: Context, change: ChangeRow): Promise<void> {
  const files = await changeFiles(database.db, change);
  const path = files.find((file) => isAgentConfiguration(file.path))?.path;
  if (path === undefined) return;
  throw new AppError("InvalidParams", `An agent cannot resolve it: ${path} configures agents' programs.`, {
    hint: "Resolve it by hand: change.accept takes a resolution per file.",
  });
}

/** What undoing came to, without the contents of conflicts: change.get shows those. */
export function revertedView({ conflicts, ...reverted }: Reverted) {
  const places = conflicts.map(({ path, kind, moved_from }) =>
    moved_from === undefined ? { path, kind } : { path, kind, moved_from },
  );
  return { ...reverted, conflicts: places };
}

/** Contents by the hex of their hash. */
type Contents = ReadonlyMap<string, Buffer>;

/** Read the contents of versions, as many as may be shown. */
async function contentsOf(
  { database }: Pick<Context, "database">,
  versions: readonly (FileVersion | null)[],
): Promise<Contents> {
  const wanted = new Map<string, Buffer>();
  let total = 0;
  for (const version of versions) {
    if (version === null || version.size > MAX_SHOWN_BYTES) continue;
    const name = version.blob_hash.toString("hex");
    if (wanted.has(name) || total + version.size > MAX_SHOWN_TOTAL) continue;
    wanted.set(name, version.blob_hash);
    total += version.size;
  }
  return readBlobs(database.db, [...wanted.values()]);
}

function shown(version: FileVersion | null, contents: Contents): (Content & { truncated?: true }) | null {
  if (version === null) return null;
  const content = contents.get(version.blob_hash.toString("hex"));
  if (content !== undefined) return encodeContent(content);
  return { content: "", encoding: "base64", size: version.size, truncated: true };
}

/** The hunks of modified texts by path, of as many files as a part may be taken of. */
function hunksOfFiles(files: readonly ChangeFile[], contents: Contents): Map<string, { hunks: Hunk[] }> {
  const found = new Map<string, { hunks: Hunk[] }>();
  for (const file of files) {
    if (!isDivisible(file) || found.size === MAX_DIVIDED_FILES) continue;
    const [before, after] = [file.before, file.after].map((version) =>
      version === null ? undefined : contents.get(version.blob_hash.toString("hex")),
    );
    if (before === undefined || after === undefined || !isText(before) || !isText(after)) continue;
    found.set(file.path, { hunks: hunksOf(decodeText(before), decodeText(after)) });
  }
  return found;
}

function summaryOf(change: ChangeRow) {
  return {
    change_id: change.id,
    project_id: change.project_id,
    ...(change.task_id === null ? {} : { task_id: change.task_id }),
    state: change.state,
    base_revision: change.base_revision,
    summary: change.summary,
    created_at: change.created_at.toISOString(),
    ...(change.decided_at === null ? {} : { decided_at: change.decided_at.toISOString() }),
    ...(change.revision === null ? {} : { revision: change.revision }),
  };
}
