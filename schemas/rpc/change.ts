import { z } from "zod";
import { taskStateSchema } from "../events.ts";
import { idSchema } from "../ids.ts";
import { MAX_PROMPT_CHARS, runnerSchema } from "./agent.ts";
import { conflictKindSchema, revertResultSchema } from "./conflict.ts";
import { defineMethod } from "./method.ts";
import { encodingSchema } from "./project.ts";

export const CHANGE_STATES = ["proposed", "accepted", "rejected"] as const;
export const changeStateSchema = z.enum(CHANGE_STATES);

const contentSchema = z.object({
  content: z.string(),
  encoding: encodingSchema,
  size: z.number().int(),
  /** The content is left out: too long to show, or there are too many. fs.read gives it. */
  truncated: z.boolean().optional(),
});

/** A stretch of lines a change makes something else of. Lines count from 1. */
const hunkSchema = z.object({
  /** Its place among the file's hunks, from 0. */
  index: z.number().int(),
  /** The first line of the old text it replaces; with no lines, the one it is put in front of. */
  old_start: z.number().int(),
  old_lines: z.number().int(),
  new_start: z.number().int(),
  new_lines: z.number().int(),
});

const changeFile = z.object({
  path: z.string(),
  status: z.enum(["added", "modified", "deleted"]),
  /** Null where the file did not exist before (added) or does not exist after (deleted). */
  before: contentSchema.nullable(),
  after: contentSchema.nullable(),
  /** Of a modified text; without them the file is accepted as a whole. */
  hunks: z.array(hunkSchema).optional(),
});

/** What of a change to accept: files left out are not accepted. */
const choiceSchema = z.strictObject({
  path: z.string(),
  /** Which of the file's hunks; without it the whole file, its deletion or its executable bit included. */
  indexes: z.array(z.number().int().min(0).max(1000)).min(1).max(1000).optional(),
});

/** An overlap with what the project has become since the change's base. */
const conflictSchema = z.object({
  path: z.string(),
  /** First what the project did since the change's base, then what the change did. */
  kind: conflictKindSchema,
  /** The project's present content, null where it has none. */
  current: contentSchema.nullable(),
  /** Both sides between conflict markers, for text. */
  merged: z.string().optional(),
  /** Where the file was before the project or the change moved it. */
  moved_from: z.string().optional(),
});

const summaryShape = {
  change_id: idSchema,
  project_id: idSchema,
  task_id: idSchema.optional(),
  state: changeStateSchema,
  base_revision: z.number().int(),
  summary: z.string(),
  created_at: z.iso.datetime(),
  decided_at: z.iso.datetime().optional(),
  /** The revision it became, once accepted. */
  revision: z.number().int().optional(),
};

const resolutionSchema = z.strictObject({
  path: z.string(),
  /** The content to keep; null deletes the file. */
  content: z.string().nullable(),
  encoding: encodingSchema.default("utf8"),
});

export const changeMethods = {
  "change.get": defineMethod({
    summary: "A change with every file before and after, and its conflicts with the project as it is now.",
    access: "viewer",
    params: z.strictObject({ change_id: idSchema }),
    result: z.object({
      ...summaryShape,
      current_revision: z.number().int(),
      files: z.array(changeFile),
      conflicts: z.array(conflictSchema),
    }),
    errors: ["NotFound"],
    example: {
      params: { change_id: "chg_01" },
      result: {
        change_id: "chg_01",
        project_id: "prj_01",
        task_id: "tsk_01",
        state: "proposed",
        base_revision: 3,
        current_revision: 3,
        summary: "Add a farewell function.",
        created_at: "2026-11-20T10:00:03.100Z",
        files: [
          {
            path: "src/farewell.js",
            status: "added",
            before: null,
            after: { content: "export {};\n", encoding: "utf8", size: 11 },
          },
          {
            path: "src/index.js",
            status: "modified",
            before: { content: "start();\n", encoding: "utf8", size: 9 },
            after: { content: "start();\nstop();\n", encoding: "utf8", size: 17 },
            hunks: [{ index: 0, old_start: 2, old_lines: 0, new_start: 2, new_lines: 1 }],
          },
        ],
        conflicts: [],
      },
    },
  }),
  "change.list": defineMethod({
    summary: "A project's changes, newest first.",
    access: "viewer",
    params: z.strictObject({
      project_id: idSchema,
      state: changeStateSchema.optional(),
      cursor: z.string().max(200).optional(),
      limit: z.number().int().min(1).max(100).default(20),
    }),
    result: z.object({ changes: z.array(z.object(summaryShape)), next_cursor: z.string().optional() }),
    errors: ["NotFound"],
    example: { params: { project_id: "prj_01" }, result: { changes: [] } },
  }),
  "change.accept": defineMethod({
    summary:
      "Make a change, or some of its hunks, the project's next revision, merging with what came since. A conflict needs a resolution per file. What was not tried in this form is tried first by the project's own checks.",
    access: "developer",
    // Trying it runs the project's tests, and each command has a time-out of its own.
    lasting: true,
    params: z.strictObject({
      change_id: idSchema,
      /** What to accept; without it everything. The rest becomes another proposed change. */
      hunks: z.array(choiceSchema).min(1).max(1000).optional(),
      resolutions: z.array(resolutionSchema).max(1000).optional(),
      /** The revision the resolutions were made at: a file changed since then is a conflict again. */
      current_revision: z.number().int().min(0).max(2_147_483_647).optional(),
      /** Take it untried, where what it comes to would be tried in a sandbox first. */
      force: z.boolean().default(false),
    }),
    result: z.object({
      change_id: idSchema,
      state: changeStateSchema,
      revision: z.number().int(),
      /** The change that holds what was not accepted, where something was left. */
      remaining_change_id: idSchema.optional(),
    }),
    errors: ["NotFound", "Conflict", "QuotaExceeded", "ResultInvalid", "EngineUnavailable", "Unavailable"],
    example: {
      params: { change_id: "chg_01", hunks: [{ path: "src/index.js", indexes: [0] }] },
      result: { change_id: "chg_01", state: "accepted", revision: 4, remaining_change_id: "chg_02" },
    },
  }),
  "change.reject": defineMethod({
    summary: "Put a change aside; the project stays as it is.",
    access: "developer",
    params: z.strictObject({ change_id: idSchema }),
    result: z.object({ change_id: idSchema, state: changeStateSchema }),
    errors: ["NotFound", "Conflict"],
    example: { params: { change_id: "chg_01" }, result: { change_id: "chg_01", state: "rejected" } },
  }),
  "change.resolve": defineMethod({
    summary:
      "Have an agent resolve a change's conflicts, or mend what fails where it meets the present project. Its result is a change that replaces this one.",
    access: "developer",
    params: z.strictObject({
      change_id: idSchema,
      model: z.string().min(1).max(200),
      agent: z.string().min(1).max(64).default("CodeAgent"),
      runner: runnerSchema.optional(),
      /** What to keep in mind; not given: keep what both sides meant. */
      prompt: z.string().trim().min(1).max(MAX_PROMPT_CHARS).optional(),
      idempotency_key: z.string().min(1).max(200).optional(),
    }),
    result: z.object({ task_id: idSchema, state: taskStateSchema }),
    errors: [
      "NotFound",
      "Conflict",
      "InsufficientBalance",
      "BudgetExceeded",
      "NoProviderKey",
      "ModelNotFound",
    ],
    example: {
      params: { change_id: "chg_01", model: "demo" },
      result: { task_id: "tsk_02", state: "pending" },
    },
  }),
  "change.revert": defineMethod({
    summary:
      "Undo an accepted change, also after later ones: its inverse is merged with what the project is now. Where that collides, the inverse is proposed as a change with conflicts.",
    access: "developer",
    params: z.strictObject({ change_id: idSchema }),
    result: revertResultSchema,
    errors: ["NotFound", "Conflict", "QuotaExceeded"],
    example: {
      params: { change_id: "chg_01" },
      result: { state: "accepted", revision: 6, change_id: "chg_03", conflicts: [] },
    },
  }),
};
