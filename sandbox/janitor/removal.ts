import { Counter } from "prom-client";
import { metricsRegistry } from "#platform/metrics.ts";
import { within } from "#platform/waiting.ts";
import type { SandboxLog } from "../types.ts";
import type { Candidate, CleanSource, RemoveOutcome, RemoveReason } from "./source.ts";

/** MU-7: each removal is counted. */
const cleanups = new Counter({
  name: "sandbox_cleanups_total",
  help: "What was removed because nobody needed it any more.",
  labelNames: ["source", "reason"],
  registers: [metricsRegistry],
});

const failures = new Counter({
  name: "sandbox_cleanup_failures_total",
  help: "Removals, and searches for what to remove, that failed or took too long.",
  labelNames: ["source"],
  registers: [metricsRegistry],
});

const freed = new Counter({
  name: "sandbox_cleanup_freed_bytes_total",
  help: "Bytes of what was removed, where its source knew them.",
  labelNames: ["source"],
  registers: [metricsRegistry],
});

/** Removes one thing after the other, each in bounded time; what hangs is left behind and not touched again. */
export class Remover {
  readonly #log: SandboxLog;
  readonly #hanging = new Set<string>();

  constructor(log: SandboxLog) {
    this.#log = log;
  }

  /** What `source` has; nothing when it fails or takes longer than `ms`, which is logged and counted. */
  async list(source: CleanSource, ms: number): Promise<Candidate[] | undefined> {
    try {
      return await within(ms, `looking for ${source.name}`, () => source.list());
    } catch (error) {
      failures.inc({ source: source.name });
      this.#log.error({ err: error, source: source.name }, "could not find out what there is to clean up");
      return undefined;
    }
  }

  /** Never throws: a failure is logged and counted. "busy" also for what hangs since an earlier call. */
  async remove(
    source: CleanSource,
    candidate: Candidate,
    reason: RemoveReason,
    ms: number,
  ): Promise<RemoveOutcome | "failed"> {
    const { name } = source;
    const key = `${name}/${candidate.id}`;
    if (this.#hanging.has(key)) return "busy";
    this.#hanging.add(key);
    try {
      const outcome = await within(ms, `removing ${candidate.id}`, async () => {
        try {
          return await candidate.remove();
        } finally {
          this.#hanging.delete(key);
        }
      });
      if (outcome !== "removed") return outcome;
      cleanups.inc({ source: name, reason });
      freed.inc({ source: name }, candidate.bytes ?? 0);
      return outcome;
    } catch (error) {
      failures.inc({ source: name });
      this.#log.error({ err: error, source: name, id: candidate.id, reason }, "could not be cleaned up");
      return "failed";
    }
  }
}

/** Remove at once what is left of those who are no more, source by source: what an earlier one frees, a later one may find. */
export async function clearOrphans(
  sources: readonly CleanSource[],
  log: SandboxLog,
  removalMs: number,
): Promise<void> {
  const remover = new Remover(log);
  for (const source of sources) {
    for (const candidate of (await remover.list(source, removalMs)) ?? []) {
      if (candidate.idleSince !== null) continue;
      const outcome = await remover.remove(source, candidate, "orphan", removalMs);
      if (outcome === "removed") {
        log.info({ source: source.name, id: candidate.id }, "removed what an earlier server left");
      }
    }
  }
}
