import { type Cipheriv, createCipheriv, createHash } from "node:crypto";

const BUFFER_BYTES = 65_536;

/** Random numbers that are the same wherever and whenever: the key stream of AES-128-CTR under the seed's hash. */
export class RandomBytes {
  readonly #stream: Cipheriv;
  #buffer: Buffer = Buffer.alloc(0);
  #position = 0;

  constructor(seed: string) {
    const hash = createHash("sha256").update(seed).digest();
    this.#stream = createCipheriv("aes-128-ctr", hash.subarray(0, 16), hash.subarray(16, 32));
  }

  take(length: number): Buffer {
    return this.#stream.update(Buffer.alloc(length));
  }

  /** In [0, 1). */
  fraction(): number {
    if (this.#position >= this.#buffer.length) {
      this.#buffer = this.take(BUFFER_BYTES);
      this.#position = 0;
    }
    const value = this.#buffer.readUInt32LE(this.#position);
    this.#position += 4;
    return value / 2 ** 32;
  }

  /** A whole number below `limit`. */
  below(limit: number): number {
    return Math.floor(this.fraction() * limit);
  }

  /** Mean 0, variance 1, within 3 of zero: nearly a normal distribution, and exact on every machine. */
  normal(): number {
    return (this.fraction() + this.fraction() + this.fraction() - 1.5) * 2;
  }
}
