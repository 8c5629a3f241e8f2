import { z } from "zod";
import { idSchema } from "../ids.ts";
import { defineMethod } from "./method.ts";
import { pathSchema } from "./project.ts";
import { environmentSchema } from "./run.ts";

/** Numbers JSON cannot write come as text: 64-bit integers always, and "NaN", "Infinity", "-Infinity", "-0". */
const valueSchema = z.union([z.number(), z.string().max(40)]);

const exported = z.object({
  name: z.string(),
  kind: z.enum(["function", "memory", "table", "global", "tag"]),
  /** Types, for functions: i32, i64, f32, f64, v128, funcref, externref. */
  params: z.array(z.string()).optional(),
  results: z.array(z.string()).optional(),
});

const instance = z.object({
  instance_id: idSchema,
  project_id: idSchema,
  /** Where it was loaded from, or "bytes". */
  source: z.string(),
  started_at: z.iso.datetime(),
  memory_bytes: z.number().int(),
  memory_limit_bytes: z.number().int(),
});

const limit = z
  .number()
  .int()
  .min(65_536)
  .max(4 * 1024 ** 3);

export const wasmMethods = {
  "wasm.load": defineMethod({
    summary:
      "Load a WebAssembly module, from bytes (base64) or a file of the project, and start an instance of it. WASI preview 1 programs see the project's files at /project.",
    access: "developer",
    lasting: true,
    params: z
      .strictObject({
        project_id: idSchema,
        bytes: z
          .base64()
          .max(32 * 1024 * 1024)
          .optional(),
        path: pathSchema.optional(),
        memory_limit: limit.optional(),
        args: z.array(z.string().max(4096)).max(100).default([]),
        env: environmentSchema.default({}),
        stdin: z
          .string()
          .max(1024 * 1024)
          .optional(),
      })
      .refine(({ bytes, path }) => (bytes === undefined) !== (path === undefined), {
        message: "Give either bytes or path.",
        path: ["bytes"],
      }),
    result: z.object({ instance_id: idSchema, exports: z.array(exported) }),
    errors: ["NotFound", "InvalidModule", "EngineUnavailable", "QuotaExceeded", "OutOfFuel", "WasmTrap"],
    example: {
      params: { project_id: "prj_01", path: "build/add.wasm" },
      result: {
        instance_id: "wsm_01",
        exports: [{ name: "add", kind: "function", params: ["i32", "i32"], results: ["i32"] }],
      },
    },
  }),
  "wasm.call": defineMethod({
    summary:
      "Call an exported function. It ends when its fuel does; the same call uses the same fuel, always and everywhere. `_start` runs a WASI program.",
    access: "developer",
    lasting: true,
    params: z.strictObject({
      instance_id: idSchema,
      function: z.string().min(1).max(1000),
      args: z.array(valueSchema).max(1000).default([]),
      /** About one unit per instruction. */
      fuel: z.number().int().min(1).max(1e15).optional(),
      timeout_ms: z.number().int().min(1).max(86_400_000).optional(),
    }),
    result: z.object({
      results: z.array(valueSchema),
      fuel_used: z.number().int(),
      stdout: z.string(),
      stderr: z.string(),
      truncated: z.boolean(),
      /** What a WASI program ended with. */
      exit_code: z.number().int().optional(),
      /** The project's revision with what it wrote; absent when it wrote nothing. */
      revision: z.number().int().optional(),
    }),
    errors: ["NotFound", "OutOfFuel", "WasmTrap", "Timeout", "PayloadTooLarge", "Conflict"],
    example: {
      params: { instance_id: "wsm_01", function: "add", args: [2, 40] },
      result: { results: [42], fuel_used: 4, stdout: "", stderr: "", truncated: false },
    },
  }),
  "wasm.memory_limit": defineMethod({
    summary: "How far an instance's memory may grow from now on; not below what it has.",
    access: "developer",
    params: z.strictObject({ instance_id: idSchema, bytes: limit }),
    result: z.object({ instance_id: idSchema, bytes: limit, used: z.number().int() }),
    errors: ["NotFound"],
    example: {
      params: { instance_id: "wsm_01", bytes: 1_048_576 },
      result: { instance_id: "wsm_01", bytes: 1_048_576, used: 65_536 },
    },
  }),
  "wasm.instances": defineMethod({
    summary: "The caller's instances, oldest first.",
    access: "viewer",
    params: z.strictObject({ project_id: idSchema.optional() }),
    result: z.object({ instances: z.array(instance) }),
    errors: ["NotFound"],
    example: {
      params: {},
      result: {
        instances: [
          {
            instance_id: "wsm_01",
            project_id: "prj_01",
            source: "build/add.wasm",
            started_at: "2026-11-28T10:00:00.000Z",
            memory_bytes: 65_536,
            memory_limit_bytes: 67_108_864,
          },
        ],
      },
    },
  }),
  "wasm.unload": defineMethod({
    summary: "End an instance.",
    access: "developer",
    params: z.strictObject({ instance_id: idSchema }),
    result: z.object({ instance_id: idSchema, unloaded: z.boolean() }),
    errors: ["NotFound"],
    example: { params: { instance_id: "wsm_01" }, result: { instance_id: "wsm_01", unloaded: true } },
  }),
};
