import type { Readable } from "node:stream";
import { AppError } from "#schemas";

/**
 * A request's body, whole, of at most `limit` bytes. What is too long is still read (and thrown away, up to
 * four times the limit), because a client that is cut off while sending never reads the answer.
 * @throws AppError PayloadTooLarge, or InvalidRequest when the body breaks off.
 */
export function readBody(stream: Readable, limit: number): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  let size = 0;
  const onData = (chunk: Buffer) => {
    size += chunk.length;
    if (size <= limit) chunks.push(chunk);
    else chunks.length = 0;
    if (size > limit * 4) finish(tooLarge);
  };
  const tooLarge = () =>
    reject(
      new AppError("PayloadTooLarge", `The body is larger than ${limit} bytes.`, { limit_bytes: limit }),
    );
  const onEnd = () => finish(() => (size > limit ? tooLarge() : resolve(Buffer.concat(chunks, size))));
  const onBroken = () => finish(() => reject(new AppError("InvalidRequest", "The body broke off.")));
  const finish = (settle: () => void) => {
    stream.off("data", onData).off("end", onEnd).off("error", onBroken).off("close", onBroken);
    settle();
  };
  stream.on("data", onData).on("end", onEnd).on("error", onBroken).on("close", onBroken);
  return promise;
}
