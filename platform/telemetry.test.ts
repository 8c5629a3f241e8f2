import { SpanStatusCode } from "@opentelemetry/api";
import { afterAll, beforeAll, expect, it } from "vitest";
import { recordSpans, type SpanRecording } from "#sandbox/testing/spans.ts";
import { AppError } from "#schemas";
import { inSpan } from "./telemetry.ts";

let recording: SpanRecording;
beforeAll(() => {
  recording = recordSpans();
});
afterAll(() => recording.stop());

it("makes a span with its attributes, and finds its parent across awaits", async () => {
  const answer = await inSpan("outer", { size: 3 }, async () => {
    await Promise.resolve();
    return inSpan("inner", {}, async () => "answer");
  });
  expect(answer).toBe("answer");
  const [inner, outer] = recording.finished();
  expect(outer).toMatchObject({ name: "outer", attributes: { size: 3 } });
  expect(inner).toMatchObject({ name: "inner", parentSpanContext: { spanId: outer?.spanContext().spanId } });
});

it("tells a failure by its code, never by its message", async () => {
  const failure = new AppError("NotFound", "There is no secret.txt.");
  await expect(inSpan("failing", {}, () => Promise.reject(failure))).rejects.toBe(failure);
  await expect(inSpan("broken", {}, () => Promise.reject(new Error("secret")))).rejects.toThrow("secret");
  const failed = recording.finished().slice(-2);
  expect(failed.map(({ name, status }) => [name, status])).toEqual([
    ["failing", { code: SpanStatusCode.ERROR, message: "NotFound" }],
    ["broken", { code: SpanStatusCode.ERROR, message: "InternalError" }],
  ]);
  expect(JSON.stringify(failed.map(({ events, attributes }) => [events, attributes]))).not.toContain(
    "secret",
  );
});
