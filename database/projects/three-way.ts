import type { ConflictKind, FileVersion } from "./types.ts";

/** One path as it was, as the project has it now, and as somebody wants it. */
export interface Sides {
  readonly path: string;
  readonly base: FileVersion | null;
  readonly current: FileVersion | null;
  readonly proposed: FileVersion | null;
}

/** What becomes of a path, as far as it can be told without reading contents. */
export type Decision =
  | { readonly kind: "keep" }
  | { readonly kind: "take"; readonly to: FileVersion | null }
  /** Both sides changed the content: merge the texts, if they are texts. */
  | { readonly kind: "merge"; readonly executable: boolean }
  | {
      readonly kind: "conflict";
      readonly conflict: Extract<ConflictKind, "delete_modify" | "modify_delete" | "add_add">;
    };

/** Three-way merge of one path by its versions alone. */
export function decide({ base, current, proposed }: Sides): Decision {
  if (sameVersion(current, proposed) || sameVersion(base, proposed)) return { kind: "keep" };
  if (sameVersion(base, current)) return { kind: "take", to: proposed };
  if (current === null) return { kind: "conflict", conflict: "delete_modify" };
  if (proposed === null) return { kind: "conflict", conflict: "modify_delete" };
  const executable =
    base === null || base.executable === current.executable ? proposed.executable : current.executable;
  if (current.blob_hash.equals(proposed.blob_hash)) return { kind: "take", to: { ...current, executable } };
  if (base === null) return { kind: "conflict", conflict: "add_add" };
  if (base.blob_hash.equals(current.blob_hash)) return { kind: "take", to: { ...proposed, executable } };
  if (base.blob_hash.equals(proposed.blob_hash)) return { kind: "take", to: { ...current, executable } };
  return { kind: "merge", executable };
}

/** Whether two versions are the same content with the same bit, or both nothing. */
export function sameVersion(left: FileVersion | null, right: FileVersion | null): boolean {
  if (left === null || right === null) return left === right;
  return left.executable === right.executable && left.blob_hash.equals(right.blob_hash);
}
