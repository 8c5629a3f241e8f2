import { type Fd, WASI } from "@bjorn3/browser_wasi_shim";
import { ERRNO, MAX_PATH_BYTES } from "./file-client.ts";
import type { MemoryOf } from "./host-functions.ts";

export type HostFunction = (...args: (number | bigint)[]) => unknown;

const MAX_DESCRIPTORS = 256;
const MAX_VECTORS = 1024;
const MAX_SUBSCRIPTIONS = 64;
const VECTOR_BYTES = 8;
const SUBSCRIPTION_BYTES = 48;
const EVENT_BYTES = 32;
const UTF8 = new TextEncoder();

/** Place of the paths' lengths among the arguments. */
const PATH_LENGTHS: Readonly<Record<string, readonly number[]>> = {
  path_create_directory: [2],
  path_filestat_get: [3],
  path_filestat_set_times: [3],
  path_link: [3, 6],
  path_open: [3],
  path_readlink: [2],
  path_remove_directory: [2],
  path_rename: [2, 5],
  path_symlink: [1, 4],
  path_unlink_file: [2],
};
const VECTORED: ReadonlySet<string> = new Set(["fd_read", "fd_pread", "fd_write", "fd_pwrite"]);

/** What a call works on, bytes, or the error number for one that asks for too much. */
function extent(
  name: string,
  args: readonly number[],
  memory: MemoryOf,
): { bytes: number } | { errno: number } {
  if (VECTORED.has(name)) {
    const [, start = 0, count = 0] = args;
    if (count > MAX_VECTORS) return { errno: ERRNO.invalid };
    const { buffer, byteLength } = memory();
    if (start + count * VECTOR_BYTES > byteLength) return { errno: ERRNO.fault };
    const view = new DataView(buffer);
    let bytes = 0;
    for (let index = 0; index < count; index += 1) {
      const length = view.getUint32(start + index * VECTOR_BYTES + 4, true);
      if (view.getUint32(start + index * VECTOR_BYTES, true) + length > byteLength)
        return { errno: ERRNO.fault };
      bytes += length;
    }
    return { bytes };
  }
  if (name === "random_get") {
    const [start = 0, length = 0] = args;
    return start + length > memory().byteLength ? { errno: ERRNO.fault } : { bytes: length };
  }
  if (name === "fd_readdir") return { bytes: Math.min(args[2] ?? 0, memory().byteLength) };
  const lengths = (PATH_LENGTHS[name] ?? []).map((place) => args[place] ?? 0);
  if (lengths.some((length) => length > MAX_PATH_BYTES)) return { errno: ERRNO.nameTooLong };
  return { bytes: lengths.reduce((sum, length) => sum + length, 0) };
}

/** Strings as `args_get` and `environ_get` lay them out: pointers, then bytes, each ending in 0. */
function strings(texts: readonly string[], memory: MemoryOf) {
  const encoded = texts.map((text) => UTF8.encode(`${text}\0`));
  const total = encoded.reduce((sum, { length }) => sum + length, 0);
  return {
    sizes(count = 0, bytes = 0): number {
      const view = new DataView(memory().buffer);
      view.setUint32(count, encoded.length, true);
      view.setUint32(bytes, total, true);
      return ERRNO.ok;
    },
    get(pointers = 0, start = 0): number {
      const bytes = memory();
      const view = new DataView(bytes.buffer);
      let at = start;
      for (const [index, text] of encoded.entries()) {
        view.setUint32(pointers + 4 * index, at, true);
        bytes.set(text, at);
        at += text.length;
      }
      return ERRNO.ok;
    },
  };
}

/** Sleeps until the earliest clock; descriptors are always ready. The shim knows one clock, and spins. */
function poll(memory: MemoryOf) {
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  return (subscriptions = 0, events = 0, count = 0, written = 0): number => {
    if (count === 0 || count > MAX_SUBSCRIPTIONS) return ERRNO.invalid;
    const view = new DataView(memory().buffer);
    const all = Array.from({ length: count }, (_, index) => {
      const at = subscriptions + index * SUBSCRIPTION_BYTES;
      const kind = view.getUint8(at + 8);
      let ms = 0;
      if (kind === 0) {
        const wanted = Number(view.getBigUint64(at + 24, true)) / 1e6;
        const absolute = (view.getUint16(at + 40, true) & 1) !== 0;
        const now = view.getUint32(at + 16, true) === 0 ? Date.now() : performance.now();
        ms = Math.max(0, absolute ? wanted - now : wanted);
      }
      return { user: view.getBigUint64(at, true), kind, ms };
    });
    const wait = Math.min(...all.map(({ ms }) => ms));
    if (wait > 0) Atomics.wait(sleeper, 0, 0, wait);
    const ready = all.filter(({ ms }) => ms <= wait);
    for (const [index, { user, kind }] of ready.entries()) {
      const at = events + index * EVENT_BYTES;
      view.setBigUint64(at, user, true);
      view.setUint16(at + 8, ERRNO.ok, true);
      view.setUint8(at + 10, kind);
    }
    view.setUint32(written, ready.length, true);
    return ERRNO.ok;
  };
}

export interface WasiOptions {
  args: readonly string[];
  env: readonly string[];
  /** Descriptors the module begins with. */
  fds: Fd[];
  memory: MemoryOf;
  /** Take the fuel for a call that works on so many bytes. */
  charge: (bytes: number) => void;
}

/**
 * WASI preview 1 by the shim, whose functions trust their arguments: numbers are made unsigned, lengths are checked
 * and paid for, descriptors are counted, and what the shim gets wrong or leaves out is done here.
 */
export function wasiFunctions(options: WasiOptions): Record<string, HostFunction> {
  const { memory, charge, fds } = options;
  const shim = new WASI([], [], fds, { debug: false });
  // It looks for nothing but the memory's buffer.
  shim.inst = {
    exports: {
      get memory() {
        return { buffer: memory().buffer } as unknown as WebAssembly.Memory;
      },
    },
  };
  const args = strings(options.args, memory);
  const env = strings(options.env, memory);
  const original = shim.wasiImport;
  const all: Record<string, (...args: never[]) => unknown> = {
    ...original,
    args_sizes_get: args.sizes,
    args_get: args.get,
    environ_sizes_get: env.sizes,
    environ_get: env.get,
    poll_oneoff: poll(memory),
    sched_yield: () => ERRNO.ok,
    proc_raise: () => ERRNO.noSystemCall,
    ...Object.fromEntries(
      ["sock_accept", "sock_recv", "sock_send", "sock_shutdown"].map((name) => [
        name,
        () => ERRNO.notSupported,
      ]),
    ),
    path_open(...given: never[]) {
      // The shim never gives a number twice.
      while (shim.fds.length > 4 && shim.fds.at(-1) === undefined) shim.fds.pop();
      if (shim.fds.length >= MAX_DESCRIPTORS) return ERRNO.tooManyOpen;
      return original.path_open?.(...given);
    },
  };
  return Object.fromEntries(
    Object.entries(all).map(([name, act]) => [
      name,
      (...given: (number | bigint)[]) => {
        const safe = given.map((value) => (typeof value === "number" ? value >>> 0 : value));
        const size = extent(name, safe as number[], memory);
        charge("bytes" in size ? size.bytes : 0);
        return "errno" in size ? size.errno : act(...(safe as never[]));
      },
    ]),
  );
}
