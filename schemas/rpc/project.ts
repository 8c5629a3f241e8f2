import { z } from "zod";
import { idSchema } from "../ids.ts";
import { revertResultSchema } from "./conflict.ts";
import { defineMethod } from "./method.ts";

export const MAX_PATH_BYTES = 1024;
/** Content of one file over JSON-RPC; larger ones come through an archive import. */
export const MAX_FILE_BYTES = 10 * 1024 * 1024;

/** A path inside a project: relative, `/`-separated, normalised by the server, never leading out. */
export const pathSchema = z.string().min(1).max(MAX_PATH_BYTES);
export const encodingSchema = z.enum(["utf8", "base64"]);
const revisionSchema = z.number().int().min(0).max(2_147_483_647);

const projectView = z.object({
  id: idSchema,
  name: z.string(),
  revision: revisionSchema,
  files: z.number().int(),
  size: z.number().int(),
  created_at: z.iso.datetime(),
  updated_at: z.iso.datetime(),
});

const exampleProject: z.input<typeof projectView> = {
  id: "prj_01",
  name: "Rathaus",
  revision: 3,
  files: 4,
  size: 1820,
  created_at: "2026-11-20T10:00:00.000Z",
  updated_at: "2026-11-20T10:05:00.000Z",
};

const nameSchema = z.string().trim().min(1).max(200);

export const projectMethods = {
  "project.create": defineMethod({
    summary: "Make a project, empty or from the sample.",
    access: "developer",
    params: z.strictObject({ name: nameSchema, template: z.enum(["empty", "sample"]).default("empty") }),
    result: projectView,
    errors: ["QuotaExceeded"],
    example: { params: { name: "Rathaus" }, result: { ...exampleProject, revision: 0, files: 0, size: 0 } },
  }),
  "project.list": defineMethod({
    summary: "The caller's projects, newest first.",
    access: "viewer",
    params: z.strictObject({
      cursor: z.string().max(200).optional(),
      limit: z.number().int().min(1).max(100).default(50),
    }),
    result: z.object({ projects: z.array(projectView), next_cursor: z.string().optional() }),
    errors: [],
    example: { params: {}, result: { projects: [exampleProject] } },
  }),
  "project.open": defineMethod({
    summary: "One project with its whole file list.",
    access: "viewer",
    params: z.strictObject({ id: idSchema }),
    result: projectView.extend({
      tree: z.array(z.object({ path: z.string(), size: z.number().int(), revision: revisionSchema })),
    }),
    errors: ["NotFound"],
    example: {
      params: { id: "prj_01" },
      result: { ...exampleProject, tree: [{ path: "src/index.js", size: 310, revision: 2 }] },
    },
  }),
  "project.rename": defineMethod({
    summary: "Give a project another name.",
    access: "developer",
    params: z.strictObject({ id: idSchema, name: nameSchema }),
    result: projectView,
    errors: ["NotFound"],
    example: {
      params: { id: "prj_01", name: "Neues Rathaus" },
      result: { ...exampleProject, name: "Neues Rathaus" },
    },
  }),
  "project.delete": defineMethod({
    summary: "Delete a project with its history. Its running tasks are cancelled.",
    access: "developer",
    params: z.strictObject({ id: idSchema }),
    result: z.object({ id: idSchema, deleted: z.literal(true) }),
    errors: ["NotFound"],
    example: { params: { id: "prj_01" }, result: { id: "prj_01", deleted: true } },
  }),
  "project.file.save": defineMethod({
    summary:
      "Save one file as a new revision. With `base_revision`, a file changed since is merged or refused as a conflict.",
    access: "developer",
    params: z.strictObject({
      project_id: idSchema,
      path: pathSchema,
      content: z.string(),
      encoding: encodingSchema.default("utf8"),
      base_revision: revisionSchema.optional(),
    }),
    result: z.object({ revision: revisionSchema, merged: z.boolean() }),
    errors: ["NotFound", "Conflict", "QuotaExceeded"],
    example: {
      params: { project_id: "prj_01", path: "src/index.js", content: "export {};\n", base_revision: 2 },
      result: { revision: 3, merged: false },
    },
  }),
  "project.revisions": defineMethod({
    summary: "A project's history, newest first.",
    access: "viewer",
    params: z.strictObject({
      project_id: idSchema,
      before_revision: revisionSchema.optional(),
      limit: z.number().int().min(1).max(200).default(50),
    }),
    result: z.object({
      revisions: z.array(
        z.object({
          revision: revisionSchema,
          author: z.string(),
          created_at: z.iso.datetime(),
          summary: z.string(),
          files: z.number().int(),
          change_id: idSchema.optional(),
        }),
      ),
    }),
    errors: ["NotFound"],
    example: {
      params: { project_id: "prj_01" },
      result: {
        revisions: [
          {
            revision: 3,
            author: "ada",
            created_at: "2026-11-20T10:05:00.000Z",
            summary: "Save src/index.js",
            files: 1,
          },
        ],
      },
    },
  }),
  "project.rollback": defineMethod({
    summary: "Bring back the tree of an older revision, as a new revision.",
    access: "developer",
    params: z.strictObject({ project_id: idSchema, revision: revisionSchema }),
    result: z.object({ revision: revisionSchema }),
    errors: ["NotFound", "QuotaExceeded"],
    example: { params: { project_id: "prj_01", revision: 1 }, result: { revision: 4 } },
  }),
  "project.revert": defineMethod({
    summary:
      "Undo what one revision did and keep what came after it. Where that collides, the inverse is proposed as a change with conflicts.",
    access: "developer",
    params: z.strictObject({ id: idSchema, revision: revisionSchema.min(1) }),
    result: revertResultSchema,
    errors: ["NotFound", "QuotaExceeded"],
    example: {
      params: { id: "prj_01", revision: 3 },
      result: { state: "accepted", revision: 5, change_id: "chg_04", conflicts: [] },
    },
  }),
};

const fileAnswer = z.object({
  content: z.string(),
  encoding: encodingSchema,
  size: z.number().int(),
  revision: revisionSchema,
});

const written = z.object({ revision: revisionSchema });

export const fsMethods = {
  "fs.read": defineMethod({
    summary: "Read a file; text as utf8, anything else as base64. With `revision`, as it was then.",
    access: "viewer",
    params: z.strictObject({
      project_id: idSchema,
      path: pathSchema,
      revision: revisionSchema.optional(),
      encoding: encodingSchema.optional(),
    }),
    result: fileAnswer,
    errors: ["NotFound"],
    example: {
      params: { project_id: "prj_01", path: "src/index.js" },
      result: { content: "export {};\n", encoding: "utf8", size: 11, revision: 3 },
    },
  }),
  "fs.write": defineMethod({
    summary: "Write a file as a new revision.",
    access: "developer",
    params: z.strictObject({
      project_id: idSchema,
      path: pathSchema,
      content: z.string(),
      encoding: encodingSchema.default("utf8"),
    }),
    result: written,
    errors: ["NotFound", "Conflict", "QuotaExceeded"],
    example: {
      params: { project_id: "prj_01", path: "notes.md", content: "# Notizen\n" },
      result: { revision: 4 },
    },
  }),
  "fs.list": defineMethod({
    summary: "What lies directly in a directory (`.` or empty = the project's root).",
    access: "viewer",
    params: z.strictObject({
      project_id: idSchema,
      path: z.string().max(MAX_PATH_BYTES).default("."),
      revision: revisionSchema.optional(),
    }),
    result: z.object({
      entries: z.array(
        z.object({ name: z.string(), type: z.enum(["file", "directory"]), size: z.number().int() }),
      ),
      revision: revisionSchema,
    }),
    errors: ["NotFound"],
    example: {
      params: { project_id: "prj_01", path: "." },
      result: { entries: [{ name: "src", type: "directory", size: 310 }], revision: 3 },
    },
  }),
  "fs.delete": defineMethod({
    summary: "Delete a file, or a directory with everything in it.",
    access: "developer",
    params: z.strictObject({ project_id: idSchema, path: pathSchema }),
    result: written,
    errors: ["NotFound"],
    example: { params: { project_id: "prj_01", path: "notes.md" }, result: { revision: 5 } },
  }),
  "fs.move": defineMethod({
    summary: "Move a file or a directory; an existing destination is a conflict.",
    access: "developer",
    params: z.strictObject({ project_id: idSchema, src: pathSchema, dest: pathSchema }),
    result: written,
    errors: ["NotFound", "Conflict"],
    example: { params: { project_id: "prj_01", src: "a.js", dest: "lib/a.js" }, result: { revision: 6 } },
  }),
  "fs.copy": defineMethod({
    summary: "Copy a file or a directory; an existing destination is a conflict.",
    access: "developer",
    params: z.strictObject({ project_id: idSchema, src: pathSchema, dest: pathSchema }),
    result: written,
    errors: ["NotFound", "Conflict", "QuotaExceeded"],
    example: { params: { project_id: "prj_01", src: "a.js", dest: "b.js" }, result: { revision: 7 } },
  }),
  "fs.mkdir": defineMethod({
    summary: "Make a directory (kept by an empty `.gitkeep` in it, as git does not know empty directories).",
    access: "developer",
    params: z.strictObject({ project_id: idSchema, path: pathSchema }),
    result: written,
    errors: ["NotFound", "Conflict", "QuotaExceeded"],
    example: { params: { project_id: "prj_01", path: "src/lib" }, result: { revision: 8 } },
  }),
};
