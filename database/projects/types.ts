import type { ProjectRow } from "../schema.ts";

/** What stands at a path: the content by its sha256, its length in bytes and the executable bit. */
export interface FileVersion {
  readonly blob_hash: Buffer;
  readonly size: number;
  readonly executable: boolean;
}

/** A file of a tree and the revision that last changed it. */
export interface TreeFile extends FileVersion {
  readonly path: string;
  readonly revision: number;
}

/** A file by name, as an import or an agent's workspace brings it. */
export interface NamedVersion extends FileVersion {
  readonly path: string;
}

/** What a revision makes of a path; null deletes it. */
export interface Delta {
  readonly path: string;
  readonly to: FileVersion | null;
}

/** One path in an edit; null content deletes. Without `executable` the file keeps its bit. */
export interface Edit {
  readonly path: string;
  readonly content: Buffer | null;
  readonly executable?: boolean;
}

/**
 * Why a path cannot be merged. The first word is what the project did since the base, the second what the
 * change did; `file_directory`: a file would stand where a directory is, or the other way round; `move_move`: both
 * moved the file, to different places.
 */
export type ConflictKind =
  | "content"
  | "delete_modify"
  | "modify_delete"
  | "add_add"
  | "move_move"
  | "move_delete"
  | "delete_move"
  | "binary"
  | "file_directory";

export interface Conflict {
  readonly path: string;
  readonly kind: ConflictKind;
  /** Both sides between conflict markers, for text that is not too long to show. */
  readonly merged?: string;
  /** Where the file was before somebody moved it. */
  readonly moved_from?: string;
}

/** What a user's projects may take; sizes in bytes (`config.quota`). */
export interface Quota {
  readonly fileBytes: number;
  readonly projectBytes: number;
  readonly projectFiles: number;
  readonly userBytes: number;
  readonly userProjects: number;
}

export type RevisionKind = "edit" | "agent" | "import" | "rollback" | "run";

/** A project's row, as far as callers need it. */
export type Project = ProjectRow;
