import { createHash } from "node:crypto";
import type { Compiled } from "./protocol.ts";

const MAX_BYTES = 64 * 1024 * 1024;
const MAX_MODULES = 64;

/** Compiled modules by the hash of their bytes; the one used longest ago goes first. */
export class ModuleCache {
  readonly #modules = new Map<string, Compiled>();
  #bytes = 0;

  static key(bytes: Uint8Array): string {
    return createHash("sha256").update(bytes).digest("hex");
  }

  get(key: string): Compiled | undefined {
    const found = this.#modules.get(key);
    if (found === undefined) return undefined;
    this.#modules.delete(key);
    this.#modules.set(key, found);
    return found;
  }

  add(key: string, compiled: Compiled): void {
    if (compiled.bytes > MAX_BYTES || this.#modules.has(key)) return;
    this.#modules.set(key, compiled);
    this.#bytes += compiled.bytes;
    for (const [oldest, { bytes }] of this.#modules) {
      if (this.#bytes <= MAX_BYTES && this.#modules.size <= MAX_MODULES) return;
      this.#modules.delete(oldest);
      this.#bytes -= bytes;
    }
  }
}
