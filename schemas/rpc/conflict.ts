import { z } from "zod";
import { idSchema } from "../ids.ts";

/**
 * Why a path cannot be merged: first what the project did since the change's base, then what the change did.
 * `file_directory`: a file would stand where a directory is, or the other way round.
 */
export const conflictKindSchema = z.enum([
  "content",
  "delete_modify",
  "modify_delete",
  "add_add",
  "move_move",
  "move_delete",
  "delete_move",
  "binary",
  "file_directory",
]);

/** What became of undoing something. */
export const revertResultSchema = z.object({
  /** `proposed`: something came since that it collides with; the change waits for a resolution per conflict. */
  state: z.enum(["accepted", "proposed"]),
  /** The project's newest revision now; the one that undoes it, where it was accepted and changed anything. */
  revision: z.number().int(),
  /** The change that undoes it, left out when nothing had to be changed. */
  change_id: idSchema.optional(),
  conflicts: z.array(
    z.object({ path: z.string(), kind: conflictKindSchema, moved_from: z.string().optional() }),
  ),
});
