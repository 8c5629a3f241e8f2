import { constants, createWriteStream } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { AppError } from "#schemas";
import type { QemuJail } from "./jail.ts";
import { INSIDE, STATE_FD } from "./machine.ts";
import type { Qmp } from "./qmp.ts";

const COMMAND_MS = 15_000;
const CONNECT_MS = 15_000;
const SAVE_MS = 120_000;
const LOAD_MS = 60_000;
const BYTES_PER_SECOND = 10_000_000_000;
const BLOCK_BYTES = 4096;
const CHUNK_BYTES = 1024 * 1024;
const ZEROS = Buffer.alloc(CHUNK_BYTES);

/** Whether memory that lies in a file of its own is left out of the state. */
async function prepare(qmp: Qmp, withoutMemory: boolean): Promise<void> {
  const capabilities = [
    { capability: "events", state: true },
    { capability: "x-ignore-shared", state: withoutMemory },
  ];
  await qmp.command("migrate-set-capabilities", { capabilities }, COMMAND_MS);
}

const settled = ({ status }: Readonly<Record<string, unknown>>) =>
  status === "completed" || status === "failed" || status === "cancelled";

/** At most `maxBytes` of a stream into a new file: what a guest's QEMU sends has whatever length it likes. */
async function receive(stream: NodeJS.ReadableStream, file: string, maxBytes: number): Promise<number> {
  let bytes = 0;
  const bounded = new Transform({
    transform(chunk: Buffer, _encoding, next) {
      bytes += chunk.length;
      if (bytes > maxBytes) next(tooLarge(maxBytes));
      else next(null, chunk);
    },
  });
  await pipeline(stream, bounded, createWriteStream(file, { flags: "wx", mode: 0o600 }));
  return bytes;
}

/**
 * Write the state of a machine that stands still into `dir/state`, 0600; answers its bytes. QEMU sends it over the
 * socket that the server listens on: it has no file to write to. Throws AppError QuotaExceeded above `maxBytes`.
 */
export async function saveState(
  jail: QemuJail,
  dir: string,
  options: { maxBytes: number; withoutMemory: boolean },
): Promise<number> {
  const { qmp } = jail;
  await prepare(qmp, options.withoutMemory);
  await qmp.command("migrate-set-parameters", { "max-bandwidth": BYTES_PER_SECOND }, COMMAND_MS);
  const outcome = qmp.event("MIGRATION", settled, SAVE_MS);
  const received = jail
    .nextConnection(CONNECT_MS)
    .then((stream) => receive(stream, join(dir, "state"), options.maxBytes));
  // Each is waited for below; until then a failure of one must not count as nobody's.
  for (const promise of [outcome, received]) promise.catch(() => undefined);
  await qmp.command("migrate", { uri: `unix:${INSIDE.socket}` }, COMMAND_MS);
  const bytes = await received;
  const { status } = await outcome;
  if (status !== "completed")
    throw new AppError("Unavailable", "The virtual machine's state could not be saved.");
  return bytes;
}

/** Take over the state at the jail's descriptor, and run. */
export async function loadState({ qmp }: QemuJail, options: { withoutMemory: boolean }): Promise<void> {
  await prepare(qmp, options.withoutMemory);
  const outcome = qmp.event("MIGRATION", settled, LOAD_MS);
  outcome.catch(() => undefined);
  await qmp.command("migrate-incoming", { uri: `fd:${STATE_FD}` }, COMMAND_MS);
  const { status } = await outcome;
  if (status !== "completed") {
    throw new AppError("Unavailable", "The virtual machine's state could not be restored.");
  }
  await qmp.command("cont", {}, COMMAND_MS);
}

/** Stop a machine's clock and processors; `cont` goes on. */
export async function standStill({ qmp }: QemuJail): Promise<void> {
  await qmp.command("stop", {}, COMMAND_MS);
}

export async function goOn({ qmp }: QemuJail): Promise<void> {
  await qmp.command("cont", {}, COMMAND_MS);
}

/**
 * Copy a machine's memory file of exactly `size` bytes, leaving holes where it is empty; answers the bytes written.
 * The source lies where QEMU can write: links are not followed, and what is no file of that size is refused.
 */
export async function copyMemory(source: string, target: string, size: number): Promise<number> {
  await using input = await open(source, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const found = await input.stat();
  if (!found.isFile() || found.size !== size) {
    throw new AppError("Unavailable", "The virtual machine's memory is not the file it was.");
  }
  await using output = await open(target, "wx", 0o600);
  await output.truncate(size);
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  let written = 0;
  for (let at = 0; at < size; at += CHUNK_BYTES) {
    const { bytesRead } = await input.read(chunk, 0, Math.min(CHUNK_BYTES, size - at), at);
    for (const [from, to] of filled(chunk.subarray(0, bytesRead))) {
      await output.write(chunk, from, to - from, at + from);
      written += to - from;
    }
  }
  return written;
}

/** The ranges of `chunk` that are not zero, in whole blocks, neighbours joined. */
function filled(chunk: Buffer): [number, number][] {
  const ranges: [number, number][] = [];
  for (let at = 0; at < chunk.length; at += BLOCK_BYTES) {
    const end = Math.min(at + BLOCK_BYTES, chunk.length);
    if (ZEROS.compare(chunk, at, end, 0, end - at) === 0) continue;
    const last = ranges.at(-1);
    if (last !== undefined && last[1] === at) last[1] = end;
    else ranges.push([at, end]);
  }
  return ranges;
}

const tooLarge = (bytes: number) =>
  new AppError("QuotaExceeded", `The virtual machine's state is larger than ${bytes} bytes.`, {
    hint: "Delete a snapshot, or take one of a smaller machine.",
  });
