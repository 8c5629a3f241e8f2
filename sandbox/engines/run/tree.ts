import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { newId } from "#platform/ids.ts";
import { AppError } from "#schemas";
import type { LaunchExit, Launched, LauncherClient } from "../../launcher/client.ts";
import type { LimitGroup, LimitHits } from "../../limits/limits.ts";
import { operation } from "../../operations.ts";
import { isRunning, type ProcessInfo, readProcess, signal } from "../../process-tree.ts";
import type {
  LimitName,
  ProcessEntry,
  SandboxExit,
  SandboxLog,
  SandboxStats,
  SandboxTree,
} from "../../types.ts";
import { BRIDGE_INSIDE_PID, PROGRAM_INSIDE_PID } from "./bwrap-args.ts";
import { describeProcess, insidePid } from "./listing.ts";

const KILL_MS = 10_000;
/** Looks at what is dying come quickly at first, then at leisure. */
const POLLS_MS = [1, 1, 2, 3, 5];
const LAST_POLL_MS = 8;
const SWEEP_ROUNDS = 50;
/** What a program answers with that died of SIGKILL, and of SIGXFSZ: a file grew beyond its limit. */
const KILLED_CODE = 128 + 9;
const FILE_LIMIT_CODE = 128 + 25;

export interface RunTreeInput {
  name: string;
  /** Whether a bridge was started beside the program. */
  bridged: boolean;
  launched: Launched;
  launcher: LauncherClient;
  group: LimitGroup;
  log: SandboxLog;
}

const identity = ({ pid, started }: { pid: number; started: string }) => `${pid}/${started}`;

interface Inmate {
  info: ProcessInfo;
  inside: number;
}

/** What a program with streams and one with a terminal have in common: a tree of processes and its end. */
export abstract class RunTree implements SandboxTree {
  readonly id: string;
  readonly startedAt = Date.now();
  readonly name: string;
  readonly pid: number;
  readonly exited: Promise<SandboxExit>;
  /** It has exited, and its streams are closed: nothing of it is left to free. */
  readonly drained: Promise<void>;
  readonly #input: RunTreeInput;
  readonly #init: { pid: number; started: string };
  #begun = false;
  #gone = false;
  #killed = false;
  #frozen = false;
  #known = new Set<string>();
  #bridge: ProcessInfo | undefined;

  constructor(kind: "process" | "terminal", input: RunTreeInput) {
    this.id = newId(kind);
    this.#input = input;
    const { launched, name } = input;
    this.name = name;
    this.pid = launched.pid;
    this.#init = { pid: launched.initPid, started: readProcess(launched.initPid)?.started ?? "" };
    this.exited = launched.exited.then((exit) => this.#finish(exit));
    this.drained = Promise.all([this.exited, ...launched.streams.map(closed)]).then(() => undefined);
  }

  async freeze(): Promise<void> {
    await this.#onGroup((group) => group.freeze());
    this.#frozen = true;
  }

  async thaw(): Promise<void> {
    await this.#onGroup((group) => group.thaw());
    this.#frozen = false;
  }

  async stats(): Promise<SandboxStats> {
    const stats = await this.#onGroup((group) => group.stats());
    return stats ?? { memoryBytes: 0, cpuMs: 0, processes: 0 };
  }

  async processes(): Promise<ProcessEntry[]> {
    const inmates = await this.#inmates();
    const numbers = new Map(inmates.map(({ info, inside }) => [info.pid, inside]));
    numbers.set(this.#init.pid, 1);
    const age = ({ info }: Inmate) => Number(info.started);
    return inmates
      .sort((one, other) => age(one) - age(other) || one.inside - other.inside)
      .map(({ info, inside }) => describeProcess(info, inside, numbers.get(info.ppid) ?? 0));
  }

  signalProcess(pid: number, name: NodeJS.Signals): Promise<void> {
    return operation("run", "signal", { signal: name }, async () => {
      const target = (await this.#inmates()).find(({ inside }) => inside === pid);
      this.rouse();
      // The number was looked up with the start time in this same turn, and the kernel gives numbers in a circle.
      if (target !== undefined && isRunning(target.info) && signal(target.info.pid, name)) return;
      throw new AppError("NotFound", `There is no process ${pid} in this sandbox.`, {
        hint: "List the processes again: it may have ended meanwhile.",
      });
    });
  }

  signal(name: NodeJS.Signals): Promise<number> {
    return operation("run", "signal", { signal: name }, async () => {
      this.rouse();
      await this.#untilGone(() => !this.#begun && isRunning(this.#init) && this.#hasNotBegun());
      const inmates = await this.#inmates();
      const program = inmates.find(({ inside }) => inside === PROGRAM_INSIDE_PID);
      if (program === undefined) return 0;
      const group = this.signalledGroup(program.info);
      return inmates.filter(({ info }) => info.group === group && isRunning(info) && signal(info.pid, name))
        .length;
    });
  }

  async mark(): Promise<void> {
    const now = await this.#processes();
    this.#known = new Set(now.map(identity));
    this.#bridge = now.find((info) => this.#isBridge(info));
  }

  async sweep(): Promise<number> {
    const wasFrozen = this.#frozen;
    const swept = new Set<string>();
    for (let round = 0; round < SWEEP_ROUNDS && !this.#gone; round += 1) {
      // Held still, nothing can fork between being listed and being killed.
      if (!wasFrozen || round > 0) await this.#onGroup((group) => group.freeze());
      const strangers = (await this.#processes()).filter((info) => this.#isStranger(info));
      for (const stranger of strangers) {
        swept.add(identity(stranger));
        signal(stranger.pid, "SIGKILL");
      }
      await this.#onGroup((group) => group.thaw());
      if (strangers.length === 0) break;
      await this.#untilGone(() => strangers.some(isRunning));
    }
    if (wasFrozen) await this.freeze();
    return swept.size;
  }

  kill(): Promise<void> {
    return operation("run", "kill", {}, () => this.#kill());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }

  async #kill(): Promise<void> {
    this.#killed = true;
    if (!this.#gone) {
      this.#input.launcher.kill(this.#input.launched);
      await this.#input.group.killAll().catch(() => undefined);
      const stop = new AbortController();
      const late = sleep(KILL_MS, "late", { signal: stop.signal }).catch(() => "stopped");
      const outcome = await Promise.race([this.exited, late]);
      stop.abort();
      if (outcome === "late") throw stillAlive(this.name);
    }
    this.dropStreams();
  }

  /** Whoever waits for what it does next does not wait for others' programs longer than need be. */
  protected rouse(): void {
    if (!this.#gone) this.#input.group.rouse();
  }

  /** Which process group `signal` means. */
  protected signalledGroup(program: ProcessInfo): number {
    return program.group;
  }

  /** No process is left: what nobody can read any more needs no writing. */
  protected abstract closeInput(): void;

  /** What nobody has begun to read, nobody will: close our ends. */
  protected abstract dropStreams(): void;

  /** The outer process has ended: make sure of all others, and find out why. */
  async #finish(exit: LaunchExit): Promise<SandboxExit> {
    const { group, log, name } = this.#input;
    const left = async () => isRunning(this.#init) || (await group.pids()).length > 0;
    if (await left()) {
      const gone = await this.#untilGone(async () => {
        const some = await left();
        // bubblewrap's own tie between the two is made late in its set-up, so nothing relies on it.
        if (isRunning(this.#init)) signal(this.#init.pid, "SIGKILL");
        if (some) await group.killAll();
        return some;
      });
      if (!gone) log.error({ sandbox: name, pid: this.#init.pid }, "processes outlived their sandbox");
    }
    const hits = await group.hits().catch((): LimitHits => ({ memory: 0, processes: 0 }));
    await group
      .remove()
      .catch((error: unknown) => log.error({ err: error, sandbox: name }, "limits not removed"));
    this.#gone = true;
    this.closeInput();
    const limit = exit.limit ?? this.#limitBehind(exit, hits);
    // Of a kill of ours the sandbox may still report its program's end before it dies itself: one answer for both.
    const killed = this.#killed && exit.code === KILLED_CODE;
    const result: SandboxExit = killed
      ? { code: null, signal: "SIGKILL" }
      : { code: exit.code, signal: exit.signal };
    return limit === undefined ? result : { ...result, limit };
  }

  /** A limit was the reason only of an end that nobody here asked for and that is no success. */
  #limitBehind(exit: LaunchExit, hits: LimitHits): LimitName | undefined {
    if (this.#killed || exit.code === 0) return undefined;
    if (hits.memory > 0) return "memory";
    if (exit.code === FILE_LIMIT_CODE) return "file";
    return hits.processes > 0 ? "processes" : undefined;
  }

  /** Ask the group for something, unless the sandbox has ended or does so meanwhile. */
  async #onGroup<T>(act: (group: LimitGroup) => Promise<T>): Promise<T | undefined> {
    if (this.#gone) return undefined;
    try {
      return await act(this.#input.group);
    } catch (error) {
      if (this.#gone || !isRunning(this.#init)) return undefined;
      throw error;
    }
  }

  async #processes(): Promise<ProcessInfo[]> {
    const pids = (await this.#onGroup((group) => group.pids())) ?? [];
    return pids.flatMap((pid) => {
      const info = readProcess(pid);
      return info === undefined || info.state === "Z" ? [] : [info];
    });
  }

  /** The bridge serves each connection in a child of its own, which comes and goes. */
  #isStranger(info: ProcessInfo): boolean {
    if (this.#known.has(identity(info))) return false;
    return this.#bridge === undefined || info.ppid !== this.#bridge.pid || !isRunning(this.#bridge);
  }

  #isBridge(info: ProcessInfo): boolean {
    if (!this.#input.bridged || info.command !== "socat" || info.ppid !== this.#init.pid) return false;
    return insidePid(info.pid) === BRIDGE_INSIDE_PID;
  }

  /** The sandbox is told to have started a few ms before its init makes the program. */
  async #hasNotBegun(): Promise<boolean> {
    this.#begun = (await this.#inmates()).some(({ inside }) => inside === PROGRAM_INSIDE_PID);
    return !this.#begun;
  }

  /** The user's processes, with their numbers inside. */
  async #inmates(): Promise<Inmate[]> {
    const all = await this.#processes();
    const bridge = all.find((info) => this.#isBridge(info));
    return all.flatMap((info) => {
      const own = info.pid === this.pid || info.pid === this.#init.pid;
      if (own || info === bridge || (bridge !== undefined && info.ppid === bridge.pid)) return [];
      const inside = insidePid(info.pid);
      return inside === undefined ? [] : [{ info, inside }];
    });
  }

  async #untilGone(some: () => boolean | Promise<boolean>): Promise<boolean> {
    const deadline = Date.now() + KILL_MS;
    for (let look = 0; await some(); look += 1) {
      if (Date.now() > deadline) return false;
      await sleep(POLLS_MS[look] ?? LAST_POLL_MS);
    }
    return true;
  }
}

function closed(stream: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (stream.closed) resolve();
    else stream.once("close", () => resolve());
  });
}

function stillAlive(name: string): AppError {
  return new AppError("Timeout", `The processes of sandbox ${name} did not end in ${KILL_MS / 1000} s.`, {
    hint: "They may hang in the kernel; the server's log names them.",
  });
}
