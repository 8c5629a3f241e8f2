import { Counter } from "prom-client";
import { metricsRegistry } from "#platform/metrics.ts";
import { inSpan } from "#platform/telemetry.ts";
import type { EngineName } from "./types.ts";

/** OB-2, under the user's own name. */
const operations = new Counter({
  name: "sandbox_operations_total",
  help: "What was asked of the sandbox engines, whether it succeeded or not.",
  labelNames: ["engine", "operation"],
  registers: [metricsRegistry],
});

/** What a span may tell of an operation: counts, sizes, names of ours; nothing a user wrote. */
export type OperationFacts = Readonly<Record<string, string | number | boolean>>;

/**
 * Every operation of an engine goes through here: one count and one span `sandbox.<engine>.<operation>` each.
 * `operation` is one of a fixed set of names, for each is a series of the metric.
 */
export function operation<T>(
  engine: EngineName,
  name: string,
  facts: OperationFacts,
  act: () => Promise<T>,
): Promise<T> {
  operations.inc({ engine, operation: name });
  return inSpan(`sandbox.${engine}.${name}`, { ...facts, engine, operation: name }, act);
}
