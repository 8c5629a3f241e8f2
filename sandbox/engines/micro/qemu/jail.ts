import type { Socket } from "node:net";
import { AppError, toAppError } from "#schemas";
import type { SandboxHost } from "../../../sandboxes.ts";
import type { Slot } from "../../../slots.ts";
import type { SandboxMount, SandboxProcess } from "../../../types.ts";
import type { MicroImage } from "../image.ts";
import { INSIDE, type Machine, machineArguments, STATE_FD } from "./machine.ts";
import { Qmp } from "./qmp.ts";
import { SlotSocket } from "./socket.ts";

const MIB = 1024 * 1024;
/** QEMU's own memory: its program, its heap, translated code. */
export const OVERHEAD_BYTES = 224 * MIB;
/** QEMU's threads: one per processor, a few of its own, and at most 64 that read the disk. */
const THREADS = 96;
const GREETING_MS = 30_000;
const CONNECT_MS = 30_000;
const MAX_REASON = 500;

/** Makes the private copy of a template's memory, opens the state, and becomes QEMU. */
const PRELUDE = {
  boot: 'exec "$@"',
  state: `exec ${STATE_FD}<${INSIDE.saved}/state && exec "$@"`,
  copy: `cp --sparse=always ${INSIDE.saved}/ram ${INSIDE.copy} </dev/null >&2 && chmod 600 ${INSIDE.copy} && exec ${STATE_FD}<${INSIDE.saved}/state && exec "$@"`,
} as const;

export interface JailInput {
  host: SandboxHost;
  image: MicroImage;
  /** Path of qemu-system-x86_64. */
  qemu: string;
  machine: Machine;
  prelude: keyof typeof PRELUDE;
  /** Directory with `state`, and for `copy` with `ram`: shown read-only. */
  saved?: string;
  /** Name of a directory to make in the slot for the machine's memory, shown writable. */
  ramDirectory?: string;
  signal?: AbortSignal | undefined;
}

/**
 * A QEMU in a sandbox of its own: a slot's user, namespaces without network, the system-call filter, limits for memory,
 * processes and CPU, and a death tied to the server's. Everything it says is taken as a guest's.
 */
export class QemuJail {
  readonly slot: Slot;
  readonly process: SandboxProcess;
  readonly socket: SlotSocket;
  readonly qmp: Qmp;
  /** The guest agent's channel, paused. */
  readonly agent: Socket;
  /** Resolves when nothing of it is left; with what QEMU said last, where it ended by itself. */
  readonly ended: Promise<string | undefined>;
  readonly #gone = new AbortController();
  readonly #drop: () => Promise<void>;
  #stopped = false;

  private constructor(parts: {
    slot: Slot;
    process: SandboxProcess;
    socket: SlotSocket;
    qmp: Qmp;
    agent: Socket;
    reason: () => string;
  }) {
    ({
      slot: this.slot,
      process: this.process,
      socket: this.socket,
      qmp: this.qmp,
      agent: this.agent,
    } = parts);
    let dropping: Promise<void> | undefined;
    this.#drop = () => {
      dropping ??= (async () => {
        this.#gone.abort();
        this.agent.destroy();
        this.qmp.close();
        await this.socket.close();
        await this.slot.release();
      })();
      return dropping;
    };
    this.ended = parts.process.exited.then(async ({ code, signal, limit }) => {
      await this.#drop();
      if (this.#stopped) return undefined;
      const how = limit === undefined ? (signal ?? `code ${code}`) : `the limit for ${limit}`;
      return parts.reason() || `it ended with ${how}`;
    });
    // A monitor that misbehaves is a machine that misbehaves.
    void this.qmp.closed.then(() => this.process.kill().catch(() => undefined));
  }

  static async start(input: JailInput): Promise<QemuJail> {
    const slot = await input.host.slots.acquire(input.signal);
    try {
      return await QemuJail.#startIn(slot, input);
    } catch (error) {
      await slot.release();
      throw error;
    }
  }

  static async #startIn(slot: Slot, input: JailInput): Promise<QemuJail> {
    const socket = await SlotSocket.listen(slot);
    let process: SandboxProcess | undefined;
    let reason: () => string = () => "";
    const gone = new AbortController();
    try {
      process = await startProcess(slot, input);
      reason = keepText(process.stderr);
      void process.exited.then(() => gone.abort());
      const cancel = input.signal === undefined ? gone.signal : AbortSignal.any([gone.signal, input.signal]);
      const [qmp, agent] = await Promise.all([
        Qmp.open(process.stdout, process.stdin, GREETING_MS),
        socket.next(CONNECT_MS, cancel),
      ]);
      return new QemuJail({ slot, process, socket, qmp, agent, reason });
    } catch (error) {
      await process?.kill();
      await socket.close();
      input.signal?.throwIfAborted();
      throw explained(error, reason());
    }
  }

  /** The next connection of this QEMU, for a stream it was told to send. */
  nextConnection(ms: number): Promise<Socket> {
    return this.socket.next(ms, this.#gone.signal);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.process.kill();
    await this.#drop();
  }
}

async function startProcess(slot: Slot, input: JailInput): Promise<SandboxProcess> {
  const { host, image, machine, saved, ramDirectory } = input;
  const file = (source: string, target: string): SandboxMount => ({ source, target, mode: "ro" });
  const mounts = [
    file(image.kernel, INSIDE.kernel),
    file(image.initrd, INSIDE.initrd),
    file(image.rootfs, INSIDE.rootfs),
    file(slot.socketPath, INSIDE.socket),
    ...(saved === undefined ? [] : [file(saved, INSIDE.saved)]),
  ];
  if (ramDirectory !== undefined) {
    mounts.push({ source: await slot.makeDir(ramDirectory), target: INSIDE.ram, mode: "rw" });
  }
  return host.start({
    name: "vm",
    argv: ["/bin/sh", "-c", PRELUDE[input.prelude], "sh", input.qemu, ...machineArguments(machine)],
    env: {},
    cwd: "/",
    mounts,
    limits: {
      memoryBytes: machine.memoryBytes + OVERHEAD_BYTES,
      processes: THREADS + machine.cpus,
      fileBytes: machine.memoryBytes + MIB,
      tmpBytes: machine.memoryBytes + 16 * MIB,
      cpus: machine.cpus,
    },
    slot,
  });
}

/** The end of what a stream says; it goes on being read, so that the other side never waits for us. */
function keepText(stream: NodeJS.ReadableStream): () => string {
  let text = "";
  stream.on("data", (chunk: Buffer) => {
    text = (text + String(chunk)).slice(-MAX_REASON);
  });
  stream.on("error", () => undefined);
  return () => text.trim().replaceAll(/\s+/g, " ");
}

function explained(error: unknown, reason: string): AppError {
  const known = toAppError(error);
  if (reason === "") return known;
  return new AppError("EngineUnavailable", `The virtual machine did not start: ${reason}`, {}, error);
}
