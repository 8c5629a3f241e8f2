import { Counter, Gauge, Histogram } from "prom-client";
import type { ProviderRoute } from "#database/accounts/provider-resolution.ts";
import { metricsRegistry } from "#platform/metrics.ts";
import type { CallOptions } from "./calls/run-call.ts";
import type { Usage } from "./calls/tally.ts";

const registers = [metricsRegistry];

/** LLM-6, under the user's own names. */
const requests = new Counter({
  name: "llm_requests_total",
  help: "Model calls by endpoint, model, who answered, and how they ended (ok, failed).",
  labelNames: ["endpoint", "model", "source", "status"],
  registers,
});
const tokens = new Counter({
  name: "llm_tokens_generated",
  help: "Output tokens.",
  labelNames: ["model", "source"],
  registers,
});
const durations = new Histogram({
  name: "llm_inference_duration_seconds",
  help: "From the request to the end of its answer.",
  labelNames: ["endpoint", "model", "source"],
  buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300],
  registers,
});
const sessions = new Gauge({
  name: "llm_active_sessions",
  help: "Model calls in work.",
  labelNames: ["source"],
  registers,
});
const memory = new Gauge({
  name: "llm_model_memory_bytes",
  help: "Resident memory of each loaded local model.",
  labelNames: ["model"],
  registers,
});

/** One call as the metrics see it; an end without `finished` is a failure. */
export interface Observed extends Disposable {
  used(usage: Usage): void;
  finished(): void;
}

export interface ObserveOptions extends Pick<CallOptions, "request" | "endpoint"> {
  source: ProviderRoute["source"];
  /** Names the server's own provider is asked for; empty: any. */
  listed: readonly string[];
}

/** Count a call from here until it is disposed of. */
export function observeCall({ request, endpoint, source, listed }: ObserveOptions): Observed {
  // Whatever callers name freely is no label: each name would be a series for ever.
  const known =
    source === "local" || source === "demo" || (source === "server" && listed.includes(request.model));
  const model = known ? request.model : "other";
  const end = durations.startTimer({ endpoint, model, source });
  let status = "failed";
  sessions.inc({ source });
  return {
    used: ({ output_tokens }) => tokens.inc({ model, source }, output_tokens),
    finished() {
      status = "ok";
    },
    [Symbol.dispose]() {
      sessions.dec({ source });
      requests.inc({ endpoint, model, source, status });
      end();
    },
  };
}

/** What the loaded models take at the moment, bytes by name; those not named are loaded no more. */
export function observeMemory(bytes: ReadonlyMap<string, number>): void {
  memory.reset();
  for (const [model, value] of bytes) memory.set({ model }, value);
}
