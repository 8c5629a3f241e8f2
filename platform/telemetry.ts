import { type Attributes, context, type Span, SpanStatusCode, trace } from "@opentelemetry/api";
import { toAppError } from "#schemas";

/**
 * Do something inside a span of its own (OB-1); what it calls finds the span as its parent. Costs next to nothing
 * until an OpenTelemetry SDK is registered in the process. A failure marks the span with the error's code: its
 * message may hold what a user wrote.
 */
export async function inSpan<T>(
  name: string,
  attributes: Attributes,
  act: (span: Span) => Promise<T>,
): Promise<T> {
  const span = trace.getTracer("cyberdevstudio").startSpan(name, { attributes });
  try {
    return await context.with(trace.setSpan(context.active(), span), () => act(span));
  } catch (error) {
    span.setStatus({ code: SpanStatusCode.ERROR, message: toAppError(error).code });
    throw error;
  } finally {
    span.end();
  }
}
