/** Most bytes of one letter in UTF-8 that can stand on the wrong side of a cut. */
const MAX_SPLIT = 3;

const isContinuation = (byte: number) => (byte & 0xc0) === 0x80;

function sequenceLength(lead: number): number {
  if (lead >= 0xf0) return 4;
  if (lead >= 0xe0) return 3;
  return lead >= 0xc0 ? 2 : 1;
}

/** How many bytes at the end begin a letter of UTF-8 without finishing it: 0 to 3, and 0 where it is no text. */
export function unfinishedBytes(data: Uint8Array): number {
  for (let back = 1; back <= Math.min(MAX_SPLIT, data.length); back += 1) {
    const byte = data[data.length - back] ?? 0;
    if (!isContinuation(byte)) return sequenceLength(byte) > back ? back : 0;
  }
  return 0;
}

/** How many bytes at the start finish a letter that began before: 0 to 3. */
function finishingBytes(data: Uint8Array): number {
  const index = data.subarray(0, MAX_SPLIT).findIndex((byte) => !isContinuation(byte));
  return index === -1 ? Math.min(MAX_SPLIT, data.length) : index;
}

/** A buffer that holds `wanted` bytes: `data` itself, or a copy of at least twice its size, up to `limit`. */
function grown(data: Buffer, wanted: number, limit: number): Buffer {
  if (data.length >= wanted) return data;
  const larger = Buffer.alloc(Math.min(limit, Math.max(wanted, data.length * 2, 1024)));
  data.copy(larger);
  return larger;
}

/**
 * The beginning and the end of what a program writes, half of `limit` bytes each: a failed build tells its reason
 * last. Holds no more than that, however much is added, and grows only as needed.
 */
export class KeptOutput {
  readonly #headLimit: number;
  readonly #tailLimit: number;
  #head: Buffer = Buffer.alloc(0);
  #headBytes = 0;
  /** Byte number n of the tail stands at n modulo its limit. */
  #tail: Buffer = Buffer.alloc(0);
  #tailBytes = 0;

  constructor(limit: number) {
    this.#headLimit = Math.ceil(limit / 2);
    this.#tailLimit = limit - this.#headLimit;
  }

  get truncated(): boolean {
    return this.#tailBytes > this.#tailLimit;
  }

  add(chunk: Buffer): void {
    const first = chunk.subarray(0, this.#headLimit - this.#headBytes);
    this.#head = grown(this.#head, this.#headBytes + first.length, this.#headLimit);
    first.copy(this.#head, this.#headBytes);
    this.#headBytes += first.length;
    this.#addTail(chunk.subarray(first.length));
  }

  /** Everything, or what was kept with a line between that tells how much is missing; letters are not torn. */
  bytes(): Buffer {
    const head = this.#head.subarray(0, this.#headBytes);
    if (!this.truncated) return Buffer.concat([head, this.#tail.subarray(0, this.#tailBytes)]);
    const start = this.#tailLimit === 0 ? 0 : this.#tailBytes % this.#tailLimit;
    const tail = Buffer.concat([this.#tail.subarray(start), this.#tail.subarray(0, start)]);
    const whole = head.subarray(0, head.length - unfinishedBytes(head));
    const last = tail.subarray(finishingBytes(tail));
    const missing = this.#headBytes + this.#tailBytes - whole.length - last.length;
    return Buffer.concat([whole, Buffer.from(`\n[... ${missing} bytes left out ...]\n`), last]);
  }

  #addTail(chunk: Buffer): void {
    const limit = this.#tailLimit;
    const skipped = Math.max(0, chunk.length - limit);
    const kept = chunk.subarray(skipped);
    this.#tailBytes += skipped;
    if (kept.length > 0) {
      const at = this.#tailBytes % limit;
      this.#tail = grown(this.#tail, Math.min(limit, this.#tailBytes + kept.length), limit);
      const untilEnd = kept.copy(this.#tail, at);
      kept.copy(this.#tail, 0, untilEnd);
    }
    this.#tailBytes += kept.length;
  }
}
