/** Between the server and a module host: a header in JSON and some bytes per frame, lengths before both. */

export interface Frame {
  header: Record<string, unknown>;
  payload: Uint8Array;
}

export interface FrameLimits {
  headerBytes: number;
  payloadBytes: number;
}

const LENGTHS_BYTES = 8;
const UTF8 = new TextDecoder("utf-8", { fatal: true });

/** A frame's bytes; those of the payload are not copied. */
export function encodeFrame(header: object, payload: Uint8Array = new Uint8Array()): Uint8Array[] {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const head = new Uint8Array(LENGTHS_BYTES + text.length);
  const view = new DataView(head.buffer);
  view.setUint32(0, text.length, true);
  view.setUint32(4, payload.length, true);
  head.set(text, LENGTHS_BYTES);
  return payload.length === 0 ? [head] : [head, payload];
}

/** Takes frames out of a stream of chunks. Holds at most one frame, whose length it checks before the rest comes. */
export class FrameReader {
  readonly #limits: FrameLimits;
  readonly #parse: (text: string) => unknown;
  #chunks: Uint8Array[] = [];
  #held = 0;

  /** `parse` reads a header's text, and throws when it is none. */
  constructor(limits: FrameLimits, parse: (text: string) => unknown = JSON.parse) {
    this.#limits = limits;
    this.#parse = parse;
  }

  /** The frames that are complete with this chunk. Throws when what comes is no frame, or too large a one. */
  *push(chunk: Uint8Array): Generator<Frame> {
    // As what it is: a Buffer's `slice` would be no copy.
    this.#chunks.push(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    this.#held += chunk.length;
    for (;;) {
      if (this.#held < LENGTHS_BYTES) return;
      const lengths = this.#peek(LENGTHS_BYTES);
      const view = new DataView(lengths.buffer, lengths.byteOffset, LENGTHS_BYTES);
      const headerBytes = view.getUint32(0, true);
      const payloadBytes = view.getUint32(4, true);
      if (headerBytes > this.#limits.headerBytes || payloadBytes > this.#limits.payloadBytes) {
        throw new Error(`a frame of ${headerBytes} and ${payloadBytes} bytes is too large`);
      }
      const total = LENGTHS_BYTES + headerBytes + payloadBytes;
      if (this.#held < total) return;
      const bytes = this.#take(total);
      const text = UTF8.decode(bytes.subarray(LENGTHS_BYTES, LENGTHS_BYTES + headerBytes));
      const header = this.#parse(text);
      if (typeof header !== "object" || header === null || Array.isArray(header)) {
        throw new Error("a frame's header is no object");
      }
      yield {
        header: header as Record<string, unknown>,
        payload: bytes.subarray(LENGTHS_BYTES + headerBytes),
      };
    }
  }

  /** The first bytes in one piece, left where they are. */
  #peek(count: number): Uint8Array {
    if ((this.#chunks[0]?.length ?? 0) < count) this.#chunks = [this.#join()];
    return this.#chunks[0] ?? new Uint8Array();
  }

  #take(count: number): Uint8Array {
    const bytes = this.#chunks.length === 1 ? (this.#chunks[0] ?? new Uint8Array()) : this.#join();
    const rest = bytes.subarray(count);
    this.#chunks = rest.length === 0 ? [] : [rest];
    this.#held = rest.length;
    return bytes.subarray(0, count);
  }

  #join(): Uint8Array {
    const joined = new Uint8Array(this.#held);
    let at = 0;
    for (const chunk of this.#chunks) {
      joined.set(chunk, at);
      at += chunk.length;
    }
    return joined;
  }
}
