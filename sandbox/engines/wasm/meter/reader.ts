import { InvalidModuleError } from "./invalid-module.ts";
import { MODULE_LIMITS } from "./limits.ts";

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Reads a part of a module from front to back, and never beyond its end. */
export class Reader {
  readonly bytes: Uint8Array;
  readonly end: number;
  at: number;

  constructor(bytes: Uint8Array, at = 0, end = bytes.length) {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
  }

  u8(): number {
    if (this.at >= this.end) throw this.broken("ends too early");
    return this.bytes[this.at++] ?? 0;
  }

  /** Unsigned, 32 bits, at most five bytes. */
  u32(): number {
    const first = this.u8();
    if (first < 0x80) return first;
    let value = first & 0x7f;
    for (let shift = 7; shift < 35; shift += 7) {
      const byte = this.u8();
      if (shift === 28 && byte > 0x0f) break;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw this.broken("has a number of more than 32 bits");
  }

  /** As `u32`, refused above `limit`. */
  count(what: string, limit: number): number {
    const value = this.u32();
    if (value > limit) throw new InvalidModuleError(`The module has ${value} ${what}; ${limit} are allowed.`);
    return value;
  }

  /** Signed, at most 33 bits: a block's type, a heap's. */
  s33(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.u8();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return (byte & 0x40) === 0 ? value : value - 2 ** (shift + 7);
    }
    throw this.broken("has a number of more than 33 bits");
  }

  /** Pass over a signed number of at most `bytes` bytes; its value is V8's to check. */
  skipSigned(bytes: number): void {
    for (let index = 0; index < bytes; index += 1) if (this.u8() < 0x80) return;
    throw this.broken("has a number that does not end");
  }

  skip(bytes: number): void {
    if (bytes > this.end - this.at) throw this.broken("ends too early");
    this.at += bytes;
  }

  /** The next `bytes` bytes as a part of their own. */
  part(bytes: number): Reader {
    const start = this.at;
    this.skip(bytes);
    return new Reader(this.bytes, start, this.at);
  }

  name(): string {
    const { at, end } = this.part(this.count("bytes in one name", MODULE_LIMITS.nameBytes));
    try {
      return UTF8.decode(this.bytes.subarray(at, end));
    } catch {
      throw this.broken("has a name that is not UTF-8");
    }
  }

  rest(): Uint8Array {
    return this.bytes.subarray(this.at, this.end);
  }

  get done(): boolean {
    return this.at >= this.end;
  }

  /** Refuse what is left over. */
  finish(what: string): void {
    if (!this.done) throw this.broken(`has ${this.end - this.at} bytes too many in its ${what}`);
  }

  broken(how: string): InvalidModuleError {
    return new InvalidModuleError(`The module is broken: it ${how} (at byte ${this.at}).`);
  }
}
