import { createParser } from "eventsource-parser";
import { ApiError } from "../api-error.ts";

/** Characters one event may have before its end comes. */
const MAX_EVENT = 8 * 1024 * 1024;

/** Armed only while the provider is waited for: a reader that stalls is not the provider's silence. */
export interface Watch {
  waiting(): void;
  arrived(): void;
}

/**
 * The data of every event of an SSE body, those of one network chunk at a time. The body is only read on
 * when the last batch was taken, and cancelled when the reader stops early.
 * @throws ApiError when an event is too large; whatever the body throws.
 */
export async function* readEvents(body: AsyncIterable<Uint8Array>, watch: Watch): AsyncGenerator<string[]> {
  const decoder = new TextDecoder();
  let batch: string[] = [];
  let tooLarge = false;
  const parser = createParser({
    maxBufferSize: MAX_EVENT,
    onEvent: ({ data }) => void batch.push(data),
    onError: ({ type }) => {
      if (type === "max-buffer-size-exceeded") tooLarge = true;
    },
  });
  watch.waiting();
  for await (const chunk of body) {
    watch.arrived();
    parser.feed(decoder.decode(chunk, { stream: true }));
    if (tooLarge) {
      throw new ApiError(502, "The provider sent an event that is too large.", {
        code: "provider_invalid_answer",
      });
    }
    if (batch.length > 0) {
      const full = batch;
      batch = [];
      yield full;
    }
    watch.waiting();
  }
  watch.arrived();
}

/** The whole body as text, at most `limit` bytes. */
export async function readText(
  body: AsyncIterable<Uint8Array>,
  limit: number,
  cut: boolean,
): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    chunks.push(chunk);
    if (size <= limit) continue;
    if (cut) break;
    throw new ApiError(502, "The provider's answer is too large.", { code: "provider_invalid_answer" });
  }
  return Buffer.concat(chunks).subarray(0, limit).toString("utf8");
}
