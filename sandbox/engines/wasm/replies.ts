import { z } from "zod";
import { parseForeignJson } from "#platform/json.ts";
import { AppError } from "#schemas";
import type { HostError } from "./host/protocol.ts";
import { MODULE_LIMITS } from "./meter/limits.ts";

/** What a host may say. Machine code of a tenant's runs in that process: nothing it says is taken unseen. */

const MAX_TEXT = 4000;
const MAX_PARTS = 200_000;
const MAX_DEPTH = 12;

const whole = z.number().int().nonnegative();
const valueType = z.enum(["i32", "i64", "f32", "f64", "v128", "funcref", "externref"]);
const exportSchema = z.strictObject({
  name: z.string().max(MODULE_LIMITS.nameBytes),
  kind: z.enum(["function", "table", "memory", "global"]),
  params: z.array(valueType).max(MODULE_LIMITS.params),
  results: z.array(valueType).max(MODULE_LIMITS.results),
});
const error = z.strictObject({
  code: z.enum([
    "InvalidModule",
    "InvalidParams",
    "OutOfFuel",
    "PayloadTooLarge",
    "Timeout",
    "Cancelled",
    "Unavailable",
    "WasmTrap",
  ]),
  message: z.string().max(MAX_TEXT),
  details: z.record(z.string().max(100), z.union([z.string().max(MAX_TEXT), z.number(), z.boolean()])),
});
const outcome = z.strictObject({
  results: z.array(z.union([z.number(), z.string().max(50)])).max(MODULE_LIMITS.results),
  fuelUsed: z.number(),
  memoryBytes: whole,
  exitCode: whole.nullable(),
  stdoutBytes: whole,
  stdoutTruncated: z.boolean(),
  stderrTruncated: z.boolean(),
  error: error.nullable(),
  dead: z.boolean(),
});
const reply = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("ready") }),
  z.strictObject({
    type: z.literal("done"),
    id: whole,
    outcome,
    loaded: z
      .strictObject({ exports: z.array(exportSchema).max(MODULE_LIMITS.exports), cached: z.boolean() })
      .optional(),
  }),
  z.strictObject({
    type: z.literal("file"),
    id: whole,
    instance: z.string().max(64),
    operation: z.enum(["read", "list", "write"]),
    path: z.string().max(MAX_TEXT),
  }),
]);

export type Reply = z.infer<typeof reply>;
export type Outcome = z.infer<typeof outcome>;

/** For `FrameReader`: refuses what nests too deep or has too many parts before it is parsed. */
export const parseHeader = (text: string): unknown =>
  parseForeignJson(text, undefined, { depth: MAX_DEPTH, parts: MAX_PARTS });

/** Throws what zod throws. */
export const parseReply = (header: unknown): Reply => reply.parse(header);

const HINTS: Partial<Record<HostError["code"], string>> = {
  OutOfFuel: "Load the module again, and call it with more fuel or less to do.",
  Timeout: "Load the module again, and give the call more time or less to do.",
  WasmTrap: "The module stopped itself; its memory is as it left it.",
  Unavailable: "Load the module again.",
};

/** What a host reported, as the caller's error. */
export function errorOf({ code, message, details }: HostError, more: Record<string, unknown> = {}): AppError {
  const hint = HINTS[code];
  return new AppError(code, message, { ...(hint === undefined ? {} : { hint }), ...details, ...more });
}
