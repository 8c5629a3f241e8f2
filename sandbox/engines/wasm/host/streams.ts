import { Fd, wasi } from "@bjorn3/browser_wasi_shim";
import { ERRNO } from "./file-client.ts";

/** A call has written so much more than is kept that it is ended. */
export class OutputFloodError extends Error {}

/** What may be written beyond what is kept, in multiples of that. */
const FLOOD = 16;

function characterDevice(rights: number) {
  const fdstat = new wasi.Fdstat(wasi.FILETYPE_CHARACTER_DEVICE, 0);
  fdstat.fs_rights_base = BigInt(rights);
  return { ret: ERRNO.ok, fdstat };
}

/** Standard input: bytes that the caller gave. */
export class InputStream extends Fd {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    super();
    this.#bytes = bytes;
  }

  override fd_fdstat_get() {
    return characterDevice(wasi.RIGHTS_FD_READ);
  }

  override fd_read(size: number) {
    const data = this.#bytes.slice(this.#at, this.#at + size);
    this.#at += data.length;
    return { ret: ERRNO.ok, data };
  }
}

/** Standard output or error: the first bytes of each call are kept. */
export class OutputStream extends Fd {
  readonly #limit: number;
  #chunks: Uint8Array[] = [];
  #kept = 0;
  #written = 0;

  constructor(limit: number) {
    super();
    this.#limit = limit;
  }

  override fd_fdstat_get() {
    return characterDevice(wasi.RIGHTS_FD_WRITE);
  }

  override fd_write(data: Uint8Array) {
    this.#written += data.length;
    const part = data.subarray(0, this.#limit - this.#kept);
    if (part.length > 0) {
      this.#chunks.push(part.slice());
      this.#kept += part.length;
    }
    if (this.#written > this.#limit * FLOOD) throw new OutputFloodError();
    return { ret: ERRNO.ok, nwritten: data.length };
  }

  /** What was written since the last time. */
  take(): { bytes: Uint8Array; truncated: boolean } {
    const bytes = new Uint8Array(this.#kept);
    let at = 0;
    for (const chunk of this.#chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    const truncated = this.#written > this.#kept;
    this.#chunks = [];
    this.#kept = 0;
    this.#written = 0;
    return { bytes, truncated };
  }
}
