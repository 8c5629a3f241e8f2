import { constants } from "node:fs";
import { access, rm, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { newId } from "#platform/ids.ts";
import { AppError, toAppError } from "#schemas";
import type { SandboxHost } from "../../../sandboxes.ts";
import { ownerOf, type Slot } from "../../../slots.ts";
import type { Availability, SandboxLog, SandboxStats } from "../../../types.ts";
import {
  type DriverVm,
  type GuestCommand,
  type GuestResult,
  type MachineSpec,
  type MicroDriver,
  startCancelled,
  type VmExit,
} from "../driver.ts";
import { findImage, whyNoImage } from "../image.ts";
import { HostClient } from "./client.ts";
import type { Ended } from "./protocol.ts";

const MIB = 1024 * 1024;
const KVM = "/dev/kvm";
/** Booting takes a fraction of a second where it works; where KVM cannot run a guest, nothing comes for half a minute. */
const PROBE_MS = 15_000;
const START_MS = 60_000;
const ANSWER_MS = 10_000;
/** After a program's time is over, until it has been ended. */
const GRACE_MS = 15_000;

export interface MicrosandboxInput {
  host: SandboxHost;
  imageDir?: string | undefined;
  log: SandboxLog;
}

interface Opened {
  client: HostClient;
  slot: Slot;
  rootfs: string;
}

/**
 * Machines by the library microsandbox (libkrun), which needs KVM. It runs in a process of its own, as a slot's user
 * where the server is root, and keeps its things in that slot. Its snapshots are of disks only, so there are none here.
 */
export class MicrosandboxDriver implements MicroDriver {
  readonly name = "microsandbox";
  readonly overheadBytes = 64 * MIB;
  readonly #input: MicrosandboxInput;
  #opened: Promise<Opened> | undefined;

  constructor(input: MicrosandboxInput) {
    this.#input = input;
  }

  /** Boots one and runs `true`, within 15 s; leaves nothing behind when that fails. */
  async probe(): Promise<Availability> {
    const obstacle = await this.#obstacle();
    if (obstacle !== undefined) return { available: false, tier: null, ...obstacle };
    try {
      const vm = await this.#start(
        { image: "node", memoryBytes: 256 * MIB, cpus: 1, diskBytes: 16 * MIB },
        PROBE_MS,
      );
      await vm.execute({
        argv: ["true"],
        env: {},
        files: [],
        timeoutMs: PROBE_MS,
        outputBytes: 1,
        processes: 8,
      });
      await vm.stop();
      return { available: true, tier: null, reasons: [] };
    } catch (error) {
      await this.close();
      const reason = `A trial machine did not work: ${toAppError(error).message}`;
      return {
        available: false,
        tier: null,
        reasons: [reason],
        hint: "KVM must be able to run a guest here.",
      };
    }
  }

  start(spec: MachineSpec, signal?: AbortSignal): Promise<DriverVm> {
    return this.#start(spec, START_MS, signal);
  }

  restore(): Promise<DriverVm> {
    return Promise.reject(noSnapshots());
  }

  fingerprint(): Promise<string> {
    return Promise.resolve(`microsandbox ${findImage(this.#input.imageDir)?.version ?? ""}`);
  }

  async close(): Promise<void> {
    const opened = await this.#opened?.catch(() => undefined);
    this.#opened = undefined;
    if (opened === undefined) return;
    opened.client.kill();
    await opened.client.exited;
    await opened.slot.release();
  }

  /** What can be seen without trying. */
  async #obstacle(): Promise<{ reasons: string[]; hint: string } | undefined> {
    try {
      await access(KVM, constants.R_OK | constants.W_OK);
    } catch {
      return {
        reasons: [`${KVM} is not there, or not ours to use.`],
        hint: "Give the server a machine with KVM.",
      };
    }
    try {
      createRequire(import.meta.url).resolve("microsandbox");
    } catch {
      return { reasons: ["The package microsandbox is not installed."], hint: "Run `npm install`." };
    }
    const reason = whyNoImage(this.#input.imageDir);
    return reason === undefined ? undefined : { reasons: [reason], hint: "Run `npm run micro`." };
  }

  async #start(spec: MachineSpec, ms: number, signal?: AbortSignal): Promise<DriverVm> {
    this.#opened ??= this.#open();
    const { client, rootfs } = await this.#opened.catch((error: unknown) => {
      this.#opened = undefined;
      throw error;
    });
    if (signal?.aborted) throw startCancelled();
    const name = newId("machine");
    const memoryMib = Math.floor(spec.memoryBytes / MIB);
    const diskMib = Math.max(1, Math.floor(spec.diskBytes / MIB));
    await client.ask({ op: "start", name, rootfs, memoryMib, diskMib, cpus: spec.cpus }, ms);
    const vm = new MicrosandboxVm(client, name);
    if (!signal?.aborted) return vm;
    await vm.stop();
    throw startCancelled();
  }

  async #open(): Promise<Opened> {
    const { host, imageDir, log } = this.#input;
    const image = findImage(imageDir);
    if (image === undefined)
      throw new AppError("EngineUnavailable", whyNoImage(imageDir) ?? "There is no image.");
    const slot = await host.slots.acquire();
    try {
      const home = await slot.makeDir("microsandbox");
      // The library tells the format by the name's ending.
      const rootfs = join(home, "rootfs.raw");
      await symlink(await host.reachable(image.rootfs), rootfs);
      const identity = ownerOf(slot);
      const client = new HostClient({ home, identity });
      void client.exited.then(async () => {
        this.#opened = undefined;
        await rm(rootfs, { force: true }).catch((err: unknown) => log.debug({ err }, "already gone"));
        await slot.release();
      });
      return { client, slot, rootfs };
    } catch (error) {
      await slot.release();
      throw error;
    }
  }
}

class MicrosandboxVm implements DriverVm {
  readonly exited: Promise<VmExit>;
  readonly #client: HostClient;
  readonly #name: string;
  readonly #end = Promise.withResolvers<VmExit>();

  constructor(client: HostClient, name: string) {
    this.#client = client;
    this.#name = name;
    this.exited = this.#end.promise;
    const error = new AppError("Unavailable", "The virtual machine has ended.", {
      hint: "Start another one.",
    });
    void client.exited.then(() => this.#end.resolve({ reason: "failed", error }));
  }

  async execute(command: GuestCommand): Promise<GuestResult> {
    const { argv, env, files, stdin, timeoutMs, processes, signal } = command;
    const kept = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
    let left = command.outputBytes;
    let truncated = false;
    const onOutput = (stream: "stdout" | "stderr", data: Buffer) => {
      truncated ||= data.length > left;
      const piece = data.subarray(0, left);
      left -= piece.length;
      if (piece.length === 0) return;
      kept[stream].push(piece);
      command.onOutput?.(stream, piece);
    };
    let id = 0;
    const onAbort = () => this.#client.killProgram(id);
    const order = { op: "execute" as const, name: this.#name, env: { ...env }, files: [...files], stdin };
    const done = this.#client.ask(
      { ...order, argv: [...argv], timeoutMs, processes },
      timeoutMs + GRACE_MS,
      onOutput,
      (given) => {
        id = given;
      },
    );
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      const { code, timedOut } = (await done) as Ended;
      if (signal?.aborted) throw new AppError("Cancelled", "The program was cancelled.");
      if (timedOut) throw new AppError("Timeout", `The program did not end in ${timeoutMs} ms.`);
      const output = { stdout: Buffer.concat(kept.stdout), stderr: Buffer.concat(kept.stderr), truncated };
      return { ...output, exitCode: code };
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  async ping(): Promise<boolean> {
    return this.#client.ask({ op: "ping", name: this.#name }, ANSWER_MS).then(
      () => true,
      () => false,
    );
  }

  snapshot(): Promise<number> {
    return Promise.reject(noSnapshots());
  }

  async stats(): Promise<SandboxStats> {
    return (await this.#client.ask({ op: "stats", name: this.#name }, ANSWER_MS)) as SandboxStats;
  }

  async stop(): Promise<void> {
    await this.#client.ask({ op: "stop", name: this.#name }, ANSWER_MS).catch(() => undefined);
    this.#end.resolve({ reason: "stopped" });
  }
}

const noSnapshots = () =>
  new AppError("EngineUnavailable", "microsandbox keeps no memory in its snapshots, so there are none.", {
    hint: "Keep what has to last as files, or run the server where machines are emulated by QEMU.",
  });
