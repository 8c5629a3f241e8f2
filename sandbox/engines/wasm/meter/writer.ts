const FIRST_BYTES = 4096;
const UTF8 = new TextEncoder();

/** A growing buffer that speaks the binary format. */
export class Writer {
  #bytes: Uint8Array;
  #length = 0;

  constructor(expected = FIRST_BYTES) {
    this.#bytes = new Uint8Array(expected);
  }

  u8(value: number): void {
    this.#room(1);
    this.#bytes[this.#length++] = value;
  }

  u32(value: number): void {
    this.#room(5);
    let rest = value;
    while (rest >= 0x80) {
      this.#bytes[this.#length++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.#bytes[this.#length++] = rest;
  }

  /** Signed, for whole numbers of any size up to 2^53. */
  signed(value: number): void {
    this.#room(8);
    let rest = value;
    for (;;) {
      const low = ((rest % 128) + 128) % 128;
      rest = Math.floor(rest / 128);
      if ((rest === 0 && low < 64) || (rest === -1 && low >= 64)) {
        this.#bytes[this.#length++] = low;
        return;
      }
      this.#bytes[this.#length++] = low | 0x80;
    }
  }

  raw(bytes: readonly number[]): void {
    this.#room(bytes.length);
    for (const byte of bytes) this.#bytes[this.#length++] = byte;
  }

  copy(source: Uint8Array, start = 0, end = source.length): void {
    const count = end - start;
    this.#room(count);
    // Most pieces are a few bytes, for which a call costs more than a loop.
    if (count < 32) {
      for (let index = start; index < end; index += 1) this.#bytes[this.#length++] = source[index] ?? 0;
      return;
    }
    this.#bytes.set(source.subarray(start, end), this.#length);
    this.#length += count;
  }

  name(text: string): void {
    const bytes = UTF8.encode(text);
    this.u32(bytes.length);
    this.copy(bytes);
  }

  /** What has been written; a view that the next write may change. */
  view(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  clear(): void {
    this.#length = 0;
  }

  #room(more: number): void {
    if (this.#length + more <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + more));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
  }
}
