import { z } from "zod";
import { idSchema } from "../ids.ts";
import { defineMethod } from "./method.ts";

const MAX_CODE = 1024 * 1024;
const image = z.enum(["node", "python"]);
const code = z.string().max(MAX_CODE);
const timeout = z.number().int().min(1).max(86_400_000).optional();

const executed = z.object({
  stdout: z.string(),
  stderr: z.string(),
  /** Null when a signal ended it. */
  exit_code: z.number().int().nullable(),
  signal: z.string().optional(),
  truncated: z.boolean(),
  duration_ms: z.number().int(),
});

const machine = z.object({
  vm_id: idSchema,
  image,
  started_at: z.iso.datetime(),
  memory_bytes: z.number().int(),
  /** ms without work after which it is stopped. */
  idle_ms: z.number().int(),
});

const snapshot = z.object({
  snapshot_id: idSchema,
  image,
  created_at: z.iso.datetime(),
  bytes: z.number().int(),
});

const exampleRun: z.input<typeof executed> = {
  stdout: "42\n",
  stderr: "",
  exit_code: 0,
  truncated: false,
  duration_ms: 1400,
};
const exampleSnapshot: z.input<typeof snapshot> = {
  snapshot_id: "snp_01",
  image: "node",
  created_at: "2026-11-28T10:00:00.000Z",
  bytes: 104_857_600,
};

export const microMethods = {
  "micro.start": defineMethod({
    summary:
      "Start a virtual machine of the caller's own, with Node.js or Python and no network, and run a script in it.",
    access: "developer",
    lasting: true,
    params: z.strictObject({ image, script: code.optional(), timeout_ms: timeout }),
    result: executed.extend({ vm_id: idSchema }),
    errors: ["EngineUnavailable", "QuotaExceeded", "Timeout"],
    example: {
      params: { image: "node", script: "console.log(6 * 7)" },
      result: { vm_id: "vm_01", ...exampleRun },
    },
  }),
  "micro.execute": defineMethod({
    summary: "Run code in a machine. Files stay from one call to the next, variables do not.",
    access: "developer",
    lasting: true,
    params: z.strictObject({
      vm_id: idSchema,
      code: code.min(1),
      stdin: z.string().max(MAX_CODE).optional(),
      timeout_ms: timeout,
    }),
    result: executed,
    errors: ["NotFound", "Timeout", "EngineUnavailable"],
    example: { params: { vm_id: "vm_01", code: "console.log(6 * 7)" }, result: exampleRun },
  }),
  "micro.stop": defineMethod({
    summary: "End a machine; everything in it is gone.",
    access: "developer",
    params: z.strictObject({ vm_id: idSchema }),
    result: z.object({ vm_id: idSchema, stopped: z.boolean() }),
    errors: ["NotFound"],
    example: { params: { vm_id: "vm_01" }, result: { vm_id: "vm_01", stopped: true } },
  }),
  "micro.list": defineMethod({
    summary: "The caller's machines and snapshots, oldest first.",
    access: "viewer",
    params: z.strictObject({}),
    result: z.object({ machines: z.array(machine), snapshots: z.array(snapshot) }),
    errors: [],
    example: {
      params: {},
      result: {
        machines: [
          {
            vm_id: "vm_01",
            image: "node",
            started_at: "2026-11-28T10:00:00.000Z",
            memory_bytes: 268_435_456,
            idle_ms: 600_000,
          },
        ],
        snapshots: [exampleSnapshot],
      },
    },
  }),
  "micro.snapshot": defineMethod({
    summary:
      "Keep a machine as it is now, for others to start from. Programs left running in it are ended; its files stay, and it goes on.",
    access: "developer",
    lasting: true,
    params: z.strictObject({ vm_id: idSchema }),
    result: snapshot,
    errors: ["NotFound", "Conflict", "EngineUnavailable", "QuotaExceeded", "Timeout"],
    example: { params: { vm_id: "vm_01" }, result: exampleSnapshot },
  }),
  "micro.restore": defineMethod({
    summary: "A new machine as the snapshot was, with randomness and a clock of its own.",
    access: "developer",
    lasting: true,
    params: z.strictObject({ snapshot_id: idSchema }),
    result: z.object({ vm_id: idSchema }),
    errors: ["NotFound", "EngineUnavailable", "QuotaExceeded", "Timeout"],
    example: { params: { snapshot_id: "snp_01" }, result: { vm_id: "vm_02" } },
  }),
  "micro.forget": defineMethod({
    summary: "Delete a snapshot.",
    access: "developer",
    params: z.strictObject({ snapshot_id: idSchema }),
    result: z.object({ snapshot_id: idSchema, deleted: z.boolean() }),
    errors: ["NotFound"],
    example: { params: { snapshot_id: "snp_01" }, result: { snapshot_id: "snp_01", deleted: true } },
  }),
};
