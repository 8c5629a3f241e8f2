import {
  commitEdits,
  copyPath,
  deletePath,
  getOwnProject,
  listDirectory,
  makeDirectory,
  movePath,
  readFile,
} from "#database/projects/index.ts";
import { operation } from "#sandbox";
import type { Context, HandlersOf } from "../handler.ts";
import { decodeContent, encodeContent } from "./content.ts";

const handlers: HandlersOf<"fs."> = {
  "fs.read": async (context, { project_id, path, revision, encoding }) => {
    const { db } = await own(context, project_id);
    const file = await readFile(db, project_id, path, revision);
    return { ...encodeContent(file.content, encoding), revision: file.revision };
  },

  "fs.write": async (context, { project_id, path, content, encoding }) => {
    const { database, operation } = await own(context, project_id);
    const edits = [{ path, content: decodeContent(content, encoding) }];
    const summary = `Write ${path}`;
    const { revision } = await commitEdits(database, { ...operation, kind: "edit", summary, edits });
    return { revision };
  },

  "fs.list": async (context, { project_id, path, revision }) => {
    const { db } = await own(context, project_id);
    return listDirectory(db, project_id, path, revision);
  },

  "fs.delete": async (context, { project_id, path }) => {
    const { database, operation } = await own(context, project_id);
    return deletePath(database, { ...operation, path });
  },

  "fs.move": async (context, { project_id, src, dest }) => {
    const { database, operation } = await own(context, project_id);
    return movePath(database, { ...operation, src, dest });
  },

  "fs.copy": async (context, { project_id, src, dest }) => {
    const { database, operation } = await own(context, project_id);
    return copyPath(database, { ...operation, src, dest });
  },

  "fs.mkdir": async (context, { project_id, path }) => {
    const { database, operation } = await own(context, project_id);
    return makeDirectory(database, { ...operation, path });
  },
};

/** An operation of the fs engine each, as those on a directory on disk are. */
export const fsHandlers = Object.fromEntries(
  Object.entries(handlers).map(([name, handler]) => [
    name,
    (context: Context, params: never) =>
      operation("fs", name.slice("fs.".length), {}, async () => handler(context, params)),
  ]),
) as unknown as HandlersOf<"fs.">;

/** What an operation on one of the caller's own projects needs. @throws AppError NotFound for any other. */
async function own({ caller, database, config }: Context, project_id: string) {
  const { db } = database;
  await getOwnProject(db, project_id, caller.user_id);
  return { db, database, operation: { project_id, author: caller.username, quota: config.quota } };
}
