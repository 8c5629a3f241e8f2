import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes, timingSafeEqual } from "node:crypto";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { AppError } from "#schemas";
import { allProcesses, signal as signalProcess } from "../process-tree.ts";
import type { LimitName, SandboxLog, TerminalSize } from "../types.ts";
import {
  type FromLauncher,
  HEADER_BYTES,
  type LaunchRequest,
  NODE_FLAGS,
  readStreamHeader,
  type ToLauncher,
} from "./protocol.ts";

/** Joining a control group waits for the kernel, for one that forks without end rather long: others go on meanwhile. */
const THREADS = "32";
const READY_MS = 15_000;
const START_MS = 15_000;
const HEADER_MS = 15_000;
const CLOSE_MS = 5_000;
/** How long and how much of an explanation is waited for. */
const REASON_MS = 500;
const MAX_REASON = 500;

export interface LaunchExit {
  code: number | null;
  signal: NodeJS.Signals | null;
  limit: LimitName | null;
}

export interface Launched {
  id: number;
  /** The outer bubblewrap process. */
  pid: number;
  /** Init of the sandbox's process namespace: when it is gone, all are. */
  initPid: number;
  /** Standard input, output and error; or the one stream of a terminal. */
  streams: readonly Socket[];
  exited: Promise<LaunchExit>;
}

interface Pending {
  streams: (Socket | undefined)[];
  started: { pid: number; initPid: number } | undefined;
  settled: boolean;
  /** How it ended, when that was heard before all its streams had arrived. */
  early: LaunchExit | undefined;
  start: PromiseWithResolvers<Launched>;
  exit: PromiseWithResolvers<LaunchExit>;
  timer: NodeJS.Timeout;
}

export interface LauncherOptions {
  /** Whose launcher it is: its last argument, by which a later server knows it. */
  instance: string;
  /** Directory of the server's own (0700) for the socket the streams arrive at. */
  socketDir: string;
  log: SandboxLog;
  /** Command the launcher's own Node is started through, for a control group of its own. */
  through?: { argv: string[]; env: Record<string, string> };
  /** Told at every start of a launcher, before anything is launched: its pid and /proc/self/cgroup. */
  onReady?: (launcher: { pid: number; cgroup: string }) => Promise<void>;
}

/**
 * The server's end of the launcher: starts it, restarts it when it died (all its sandboxes died with it),
 * and hands out what it launches. Streams arrive at a private unix socket, so back-pressure is the kernel's.
 */
export class LauncherClient implements AsyncDisposable {
  readonly #options: LauncherOptions;
  readonly #server: Server;
  readonly #secret = randomBytes(32).toString("hex");
  readonly #pending = new Map<number, Pending>();
  #child: ChildProcess | undefined;
  #ready: Promise<ChildProcess> | undefined;
  readonly #sockets = new Set<Socket>();
  #nextId = 1;
  #closed = false;

  private constructor(options: LauncherOptions) {
    this.#options = options;
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) =>
      this.#accept(socket),
    );
  }

  static async open(options: LauncherOptions): Promise<LauncherClient> {
    const client = new LauncherClient(options);
    const listening = Promise.withResolvers<void>();
    client.#server.once("error", listening.reject);
    client.#server.listen(client.#socketPath, listening.resolve);
    await listening.promise;
    try {
      await client.#launcher();
      return client;
    } catch (error) {
      await client.close();
      throw error;
    }
  }

  /** Pid of the running launcher, if any. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get #socketPath(): string {
    return join(this.#options.socketDir, "streams.sock");
  }

  /** Start one program; throws AppError EngineUnavailable or Timeout, and then nothing of it is left running. */
  async launch(request: Omit<LaunchRequest, "id">): Promise<Launched> {
    const launcher = await this.#launcher();
    const id = this.#nextId++;
    const pending: Pending = {
      streams: request.terminal === null ? [undefined, undefined, undefined] : [undefined],
      started: undefined,
      settled: false,
      early: undefined,
      start: Promise.withResolvers(),
      exit: Promise.withResolvers(),
      timer: setTimeout(() => this.#giveUp(id), START_MS),
    };
    this.#pending.set(id, pending);
    send(launcher, { type: "launch", request: { ...request, id } });
    return pending.start.promise;
  }

  /** SIGKILL for that sandbox; its exit is told as any other. */
  kill({ id }: Launched): void {
    if (this.#child !== undefined && this.#pending.has(id)) send(this.#child, { type: "kill", id });
  }

  /** Tell a terminal its new size. */
  resize({ id }: Launched, size: TerminalSize): void {
    if (this.#child !== undefined && this.#pending.has(id)) send(this.#child, { type: "resize", id, size });
  }

  /** End the launcher and with it every sandbox. */
  async close(): Promise<void> {
    this.#closed = true;
    const child = this.#child;
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      const gone = new Promise((resolve) => child.once("exit", resolve));
      const timer = setTimeout(() => child.kill("SIGKILL"), CLOSE_MS);
      if (child.connected) child.disconnect();
      await gone;
      clearTimeout(timer);
    }
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #launcher(): Promise<ChildProcess> {
    if (this.#closed) throw new AppError("Unavailable", "The sandbox has been shut down.");
    this.#ready ??= this.#startLauncher().catch((error: unknown) => {
      this.#ready = undefined;
      throw error;
    });
    return this.#ready;
  }

  async #startLauncher(): Promise<ChildProcess> {
    const main = fileURLToPath(new URL("./main.ts", import.meta.url));
    const { instance, through, onReady, log } = this.#options;
    const command = [...(through?.argv ?? []), process.execPath, ...NODE_FLAGS, main, instance];
    const [file = "", ...args] = command;
    const child = spawn(file, args, {
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      env: { UV_THREADPOOL_SIZE: THREADS, ...through?.env },
      cwd: "/",
      // A session of its own: a terminal's Ctrl+C reaches the server alone.
      detached: true,
    });
    this.#child = child;
    const ready = Promise.withResolvers<{ pid: number; cgroup: string }>();
    const timer = setTimeout(() => ready.reject(new Error("the launcher did not start in time")), READY_MS);
    child.once("error", ready.reject);
    child.once("exit", (code, signal) => {
      ready.reject(new Error(`the launcher ended (${signal ?? code})`));
      this.#onLauncherGone(child, code, signal);
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => log.error({ text }, "sandbox launcher"));
    child.on("message", (message: FromLauncher) => {
      if (message.type === "ready") ready.resolve(message);
      else this.#onMessage(message);
    });
    try {
      const about = await ready.promise;
      send(child, { type: "hello", socket: this.#socketPath, secret: this.#secret });
      await onReady?.(about);
      // Ended meanwhile, it would never answer whoever waited for it.
      if (this.#child !== child) throw new Error("the launcher ended while it was made ready");
      return child;
    } catch (error) {
      child.kill("SIGKILL");
      throw new AppError("EngineUnavailable", "The sandbox launcher could not be started.", {}, error);
    } finally {
      clearTimeout(timer);
    }
  }

  #onLauncherGone(child: ChildProcess, code: number | null, signal: NodeJS.Signals | null): void {
    if (this.#child !== child) return;
    this.#child = undefined;
    this.#ready = undefined;
    if (!this.#closed)
      this.#options.log.error({ code, signal }, "the sandbox launcher ended; its runs with it");
    // What was only half made does not die with the launcher, but still is in its session.
    for (const info of allProcesses().values()) {
      if (info.session === child.pid) signalProcess(info.pid, "SIGKILL");
    }
    for (const id of this.#pending.keys()) {
      this.#settleExit(id, { code: null, signal: "SIGKILL", limit: null });
    }
  }

  #onMessage(message: Exclude<FromLauncher, { type: "ready" }>): void {
    const pending = this.#pending.get(message.id);
    if (pending === undefined) return;
    if (message.type === "started") {
      pending.started = { pid: message.pid, initPid: message.initPid };
      this.#settleStart(message.id, pending);
    } else if (message.type === "failed") {
      pending.start.reject(
        new AppError("EngineUnavailable", `The sandbox did not start: ${message.message}`),
      );
      this.#settleExit(message.id, { code: null, signal: null, limit: null });
    } else {
      this.#settleExit(message.id, message);
    }
  }

  /** One of a program's three streams: believed only with the secret, and read not a byte too far. */
  #accept(socket: Socket): void {
    const timer = setTimeout(() => socket.destroy(), HEADER_MS);
    socket.on("error", () => undefined);
    this.#sockets.add(socket);
    const onReadable = () => {
      const header: Buffer | null = socket.read(HEADER_BYTES);
      if (header === null) return;
      clearTimeout(timer);
      socket.off("readable", onReadable);
      const { secret, id, fd } = readStreamHeader(header.toString("latin1"));
      const pending = this.#pending.get(id);
      const known = timingSafeEqual(Buffer.from(secret), Buffer.from(this.#secret));
      if (!known || pending === undefined || !(fd in pending.streams)) {
        socket.destroy();
        return;
      }
      pending.streams[fd] = socket;
      this.#settleStart(id, pending);
    };
    socket.once("close", () => {
      clearTimeout(timer);
      this.#sockets.delete(socket);
    });
    socket.on("readable", onReadable);
  }

  #settleStart(id: number, pending: Pending): void {
    const streams = pending.streams.filter((stream) => stream !== undefined);
    if (pending.started === undefined || streams.length < pending.streams.length) return;
    clearTimeout(pending.timer);
    pending.settled = true;
    // Closed from the other side, a connection is half open: this ends our half of it, which nobody uses.
    for (const stream of streams) stream.once("end", () => stream.end());
    pending.start.resolve({ id, ...pending.started, streams, exited: pending.exit.promise });
    if (pending.early !== undefined) this.#settleExit(id, pending.early);
  }

  #settleExit(id: number, exit: LaunchExit): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    if (pending.started !== undefined && !pending.settled && this.#child !== undefined) {
      pending.early = exit;
      return;
    }
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if (!pending.settled) void rejectWithReason(pending);
    pending.exit.resolve(exit);
  }

  #giveUp(id: number): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    if (this.#child !== undefined) send(this.#child, { type: "kill", id });
    pending.start.reject(new AppError("Timeout", "The sandbox did not start in time."));
    if (pending.early !== undefined) this.#pending.delete(id);
  }
}

/** It ended before it began: what it said on stderr tells why. */
async function rejectWithReason({ streams, start }: Pending): Promise<void> {
  const stderr = streams.at(-1);
  let text = "";
  stderr?.on("data", (chunk) => {
    if (text.length < MAX_REASON) text += String(chunk);
  });
  // A terminal takes this for the wish to end it, before it has told its reason.
  if (streams.length > 1) stderr?.end();
  const ended = new Promise((resolve) => stderr?.once("end", resolve).once("close", resolve));
  if (stderr !== undefined) await Promise.race([ended, sleep(REASON_MS, undefined, { ref: false })]);
  for (const stream of streams) stream?.destroy();
  const reason = text.trim() || "it ended while it was being set up";
  start.reject(
    new AppError("EngineUnavailable", `The sandbox did not start: ${reason.slice(0, MAX_REASON)}`),
  );
}

function send(child: ChildProcess, message: ToLauncher): void {
  if (child.connected) child.send(message, () => undefined);
}
