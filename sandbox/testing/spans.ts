import { context, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { metricsRegistry } from "#platform/metrics.ts";
import type { EngineName } from "../types.ts";

/** Spans that end between the start of a recording and `stop`; one recording at a time in a process. */
export interface SpanRecording {
  finished(): readonly ReadableSpan[];
  stop(): Promise<void>;
}

export function recordSpans(): SpanRecording {
  const exporter = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  if (!trace.setGlobalTracerProvider(provider)) throw new Error("Another provider of spans is in the way.");
  return {
    finished: () => exporter.getFinishedSpans(),
    async stop() {
      trace.disable();
      context.disable();
      await provider.shutdown();
    },
  };
}

/** How often an operation of an engine has been counted in this process. */
export async function countOf(engine: EngineName, operation: string): Promise<number> {
  const metric = await metricsRegistry.getSingleMetric("sandbox_operations_total")?.get();
  const found = metric?.values.find(
    ({ labels }) => labels.engine === engine && labels.operation === operation,
  );
  return found?.value ?? 0;
}
