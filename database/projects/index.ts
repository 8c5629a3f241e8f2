/** The project store's face: every change is a revision, every path a key in a table. */
export { batches, collectBlobs, hashContent, putBlobs, readBlobs, readContents } from "./blobs.ts";
export {
  type ChangeFile,
  changeFiles,
  getChange,
  getOwnChange,
  insertChange,
  listChanges,
  type NewChange,
  type Preview,
  previewChange,
} from "./changes.ts";
export { type Acceptance, acceptChange, type Resolution, rejectChange } from "./decisions.ts";
export { commitEdits, commitImport, type EditCommit, type ImportCommit } from "./edits.ts";
export { copyPath, deletePath, makeDirectory, movePath } from "./moves.ts";
export { normalizeDirectory, normalizePath, showPath } from "./paths.ts";
export { getOwnProject, getProject } from "./project.ts";
export { bytes, checkFileSize, exceeded } from "./quotas.ts";
export {
  type DirectoryEntry,
  listDirectory,
  listRevisions,
  type ReadFile,
  readFile,
  readTree,
} from "./reading.ts";
export { rollbackProject } from "./rollback.ts";
export { createProject, deleteProject, listProjects, type NewProject, renameProject } from "./store.ts";
export { decodeText, isText } from "./text.ts";
export { diffTrees } from "./tree.ts";
export type {
  Conflict,
  ConflictKind,
  Delta,
  Edit,
  FileVersion,
  NamedVersion,
  Project,
  Quota,
  TreeFile,
} from "./types.ts";
