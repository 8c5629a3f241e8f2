/** The project store's face: every change is a revision, every path a key in a table. */
export {
  type Acceptance,
  alreadyDecided,
  previewAcceptance,
} from "./acceptance.ts";
export { collectBlobs, hashContent, putBlobs, readBlobs, readContents, storeFiles } from "./blobs.ts";
export { previewChange } from "./change-merge.ts";
export {
  type ChangeFile,
  changeFiles,
  getChange,
  getOwnChange,
  insertChange,
  listChanges,
  type NewChange,
  proposedBytes,
} from "./changes.ts";
export { startBlobCollector } from "./collector.ts";
export { type Accepted, acceptChange, rejectChange } from "./decisions.ts";
export { commitEdits, commitImport } from "./edits.ts";
export { type Hunk, hunksOf, isDivisible, MAX_DIVIDED_FILES } from "./hunks.ts";
export { copyPath, deletePath, makeDirectory, movePath } from "./moves.ts";
export { overlayChanges } from "./overlay.ts";
export { normalizeDirectory, normalizePath, showPath } from "./paths.ts";
export { getOwnProject, getProject } from "./project.ts";
export { bytes, checkFileSize, exceeded } from "./quotas.ts";
export { listDirectory, listRevisions, readFile, readTree } from "./reading.ts";
export { type Reverted, revertChange, revertRevision } from "./revert.ts";
export { rollbackProject } from "./rollback.ts";
export { createProject, deleteProject, listProjects, renameProject } from "./store.ts";
export { decodeText, isText } from "./text.ts";
export type { FileVersion, NamedVersion, Project, Quota, TreeFile } from "./types.ts";
