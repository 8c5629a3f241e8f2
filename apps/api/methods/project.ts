import {
  commitEdits,
  createProject,
  deleteProject,
  getOwnProject,
  listProjects,
  listRevisions,
  type Project,
  readTree,
  renameProject,
  revertRevision,
  rollbackProject,
} from "#database/projects/index.ts";
import { cancelProjectTasks } from "#database/queue/cancel-project.ts";
import type { HandlersOf } from "../handler.ts";
import { revertedView } from "./change.ts";
import { decodeContent } from "./content.ts";
import { readSampleProject } from "./sample.ts";

export const projectHandlers: HandlersOf<"project."> = {
  "project.create": async ({ caller, database, config }, { name, template }) => {
    const project = { owner_id: caller.user_id, name, quota: config.quota };
    if (template === "empty") return projectView(await createProject(database, project));
    const start = {
      author: caller.username,
      summary: "Start from the sample",
      files: await readSampleProject(),
    };
    return projectView(await createProject(database, { ...project, start }));
  },

  "project.list": async ({ caller, database }, { cursor, limit }) => {
    const page = await listProjects(database.db, { owner_id: caller.user_id, cursor, limit });
    const projects = page.projects.map(projectView);
    return page.next_cursor === undefined ? { projects } : { projects, next_cursor: page.next_cursor };
  },

  "project.open": async ({ caller, database }, { id }) => {
    const project = await getOwnProject(database.db, id, caller.user_id);
    // The tree of just that revision, whatever is committed in between.
    const tree = await readTree(database.db, id, project.head_revision);
    return {
      ...projectView(project),
      tree: tree.map(({ path, size, revision }) => ({ path, size, revision })),
    };
  },

  "project.rename": async ({ caller, database }, { id, name }) => {
    await getOwnProject(database.db, id, caller.user_id);
    return projectView(await renameProject(database.db, id, name));
  },

  "project.delete": async ({ caller, database, workbench, log }, { id }) => {
    await getOwnProject(database.db, id, caller.user_id);
    await cancelProjectTasks(database.db, id);
    await deleteProject(database.db, id);
    // One dispatched in between; from now on nobody finds the project to dispatch another.
    await cancelProjectTasks(database.db, id);
    await workbench.dropProject(id);
    log.info({ project_id: id }, "project deleted");
    return { id, deleted: true };
  },

  "project.file.save": async ({ caller, database, config }, params) => {
    const { project_id, path, content, encoding, base_revision } = params;
    await getOwnProject(database.db, project_id, caller.user_id);
    return commitEdits(database, {
      project_id,
      author: caller.username,
      kind: "edit",
      summary: `Save ${path}`,
      base_revision,
      edits: [{ path, content: decodeContent(content, encoding) }],
      quota: config.quota,
    });
  },

  "project.revisions": async ({ caller, database }, { project_id, before_revision, limit }) => {
    await getOwnProject(database.db, project_id, caller.user_id);
    const rows = await listRevisions(database.db, { project_id, before_revision, limit });
    return {
      revisions: rows.map(({ revision, author, created_at, summary, files, change_id }) => ({
        revision,
        author,
        created_at: created_at.toISOString(),
        summary,
        files,
        ...(change_id === null ? {} : { change_id }),
      })),
    };
  },

  "project.rollback": async ({ caller, database, config }, { project_id, revision }) => {
    await getOwnProject(database.db, project_id, caller.user_id);
    const author = caller.username;
    return rollbackProject(database, { project_id, revision, author, quota: config.quota });
  },

  "project.revert": async ({ caller, database, config }, { id, revision }) => {
    await getOwnProject(database.db, id, caller.user_id);
    const by = { author: caller.username, decided_by: caller.user_id };
    const revert = { project_id: id, revision, ...by, quota: config.quota };
    return revertedView(await revertRevision(database, revert));
  },
};

function projectView(project: Project) {
  return {
    id: project.id,
    name: project.name,
    revision: project.head_revision,
    files: project.file_count,
    size: project.size_bytes,
    created_at: project.created_at.toISOString(),
    updated_at: project.updated_at.toISOString(),
  };
}
