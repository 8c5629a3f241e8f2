import { chmod, chown, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { AppError } from "#schemas";
import { remembered } from "../../availability.ts";
import { findProgram, type SystemLayout, systemLayout } from "../../host.ts";
import type { Launched, LauncherClient } from "../../launcher/client.ts";
import type { LimitDriver, LimitGroup } from "../../limits/limits.ts";
import { operation } from "../../operations.ts";
import type { Runtime } from "../../runtime.ts";
import type { Slot } from "../../slots.ts";
import type {
  Availability,
  Engine,
  SandboxLog,
  SandboxMount,
  SandboxProcess,
  SandboxSpec,
  SandboxTerminal,
  TerminalSize,
  TerminalSpec,
} from "../../types.ts";
import { bwrapCommand, bwrapOptions } from "./bwrap-args.ts";
import { checkSpec } from "./policy.ts";
import { RunProcess } from "./process.ts";
import { seccompFilter } from "./seccomp.ts";
import { checkSize, RunTerminal, terminalProgram } from "./terminal.ts";
import type { RunTree, RunTreeInput } from "./tree.ts";

export interface RunEngineInput {
  runtime: Runtime;
  launcher: LauncherClient;
  /** Asked for at every start: a restarted launcher may bring another. */
  limits: () => LimitDriver;
  /** Finds out by a trial whether programs can be started here. */
  probe: () => Promise<Availability>;
  log: SandboxLog;
}

interface Programs {
  bwrap: string;
  prlimit: string;
  socat: string;
}

/** What has to be installed, with the packages' Debian names. */
export const NEEDED = {
  bwrap: "bubblewrap",
  prlimit: "util-linux",
  setsid: "util-linux",
  socat: "socat",
} as const;

export function missingPrograms(): (keyof typeof NEEDED)[] {
  return (Object.keys(NEEDED) as (keyof typeof NEEDED)[]).filter((name) => findProgram(name) === undefined);
}

function need(name: keyof typeof NEEDED): string {
  const path = findProgram(name);
  if (path !== undefined) return path;
  throw new AppError("EngineUnavailable", `${name} is not installed, and nothing runs without a sandbox.`, {
    hint: `Install the package ${NEEDED[name]}.`,
  });
}

/** Programs in namespaces of their own by bubblewrap: no network, no host files, a system-call filter, limits. */
export class RunEngine implements Engine<SandboxSpec, SandboxProcess> {
  readonly name = "run";
  readonly probe: () => Promise<Availability>;
  readonly #input: RunEngineInput;
  readonly #system: SystemLayout;
  readonly #filter: string;
  /** Until they are ended, or have exited and been read to the end. */
  readonly #open = new Map<RunTree, Slot>();
  readonly #running = new Set<RunProcess>();
  readonly #terminals = new Set<RunTerminal>();
  /** Starts that wait for their turn. */
  readonly #waiting = new Map<AbortController, Slot>();
  #closed = false;

  private constructor(input: RunEngineInput, filter: string) {
    this.#input = input;
    this.probe = remembered(input.probe);
    this.#system = systemLayout();
    this.#filter = filter;
  }

  static async open(input: RunEngineInput): Promise<RunEngine> {
    const filter = join(input.runtime.dir, "filter.bpf");
    await writeFile(filter, seccompFilter(process.arch), { mode: 0o600 });
    return new RunEngine(input, filter);
  }

  list(): readonly SandboxProcess[] {
    return [...this.#running];
  }

  /** The terminals whose program has not ended, oldest first. */
  terminals(): readonly SandboxTerminal[] {
    return [...this.#terminals];
  }

  /**
   * Start a program. It runs when this resolves; what is wrong with the program itself (no such file) shows
   * as exit code 1 or 127 and a line on stderr. Throws AppError InvalidParams for a spec that could not be isolated
   * safely, NotFound for a missing mount source, EngineUnavailable when no sandbox can be made, Cancelled when `signal`
   * aborts (or the slot is released) while it waits for its turn on a busy machine.
   */
  start(spec: SandboxSpec, signal?: AbortSignal): Promise<SandboxProcess> {
    return operation(this.name, "start", { bridge: spec.bridge !== undefined }, async () =>
      this.#keep(this.#running, spec.slot, new RunProcess(await this.#start(spec, null, signal))),
    );
  }

  /**
   * Start a shell, or another program, in a terminal. Throws as `start` does, and AppError EngineUnavailable where
   * there is no package for terminals on this platform.
   */
  startTerminal(spec: TerminalSpec, signal?: AbortSignal): Promise<SandboxTerminal> {
    return operation(this.name, "terminal", { bridge: spec.bridge !== undefined }, async () => {
      checkSize(spec.size);
      need("setsid");
      const started = await this.#start({ ...spec, ...terminalProgram(spec) }, spec.size, signal);
      return this.#keep(this.#terminals, spec.slot, new RunTerminal(started));
    });
  }

  /** End every sandbox of one slot, or all. */
  async endAll(slot?: Slot): Promise<void> {
    for (const [waiting, owner] of this.#waiting) if (slot === undefined || owner === slot) waiting.abort();
    const theirs = [...this.#open].filter(([, owner]) => slot === undefined || owner === slot);
    await Promise.all(theirs.map(([tree]) => tree.kill()));
    for (const [tree] of theirs) this.#open.delete(tree);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.endAll();
  }

  #keep<Tree extends RunTree>(running: Set<Tree>, slot: Slot, tree: Tree): Tree {
    this.#open.set(tree, slot);
    running.add(tree);
    void tree.exited.finally(() => running.delete(tree));
    void tree.drained.then(() => this.#open.delete(tree));
    return tree;
  }

  async #start(
    spec: SandboxSpec,
    terminal: TerminalSize | null,
    signal?: AbortSignal,
  ): Promise<RunTreeInput> {
    if (this.#closed) throw new AppError("Unavailable", "The sandbox is shutting down.");
    checkSpec(spec);
    const socat = spec.bridge === undefined ? "" : need("socat");
    const programs = { bwrap: need("bwrap"), prlimit: need("prlimit"), socat };
    const mounts = await Promise.all(spec.mounts.map((mount) => this.#resolveMount(mount, spec.slot)));
    if (spec.bridge !== undefined) await this.#openBridge(spec.bridge.socketPath, spec.slot);
    const group = await this.#limit(spec, signal);
    try {
      const launched = await this.#launch({ ...spec, mounts }, terminal, programs, group);
      const { launcher, log } = this.#input;
      return { name: spec.name, bridged: spec.bridge !== undefined, launched, launcher, group, log };
    } catch (error) {
      await group.killAll().catch(() => undefined);
      await group.remove().catch(() => undefined);
      throw error;
    }
  }

  async #limit({ limits, slot, owner }: SandboxSpec, signal?: AbortSignal): Promise<LimitGroup> {
    const waiting = new AbortController();
    const either = signal === undefined ? waiting.signal : AbortSignal.any([waiting.signal, signal]);
    this.#waiting.set(waiting, slot);
    try {
      const request = { owner: owner ?? slot.dir, signal: either };
      return await this.#input.limits().create(limits, request);
    } finally {
      this.#waiting.delete(waiting);
    }
  }

  async #launch(
    spec: SandboxSpec,
    terminal: TerminalSize | null,
    { bwrap, prlimit, socat }: Programs,
    group: LimitGroup,
  ): Promise<Launched> {
    const { launcher, runtime } = this.#input;
    const { limits, slot } = spec;
    const wrapper = group.prlimit.length === 0 ? [] : [prlimit, ...group.prlimit, "--"];
    const command = bwrapCommand(spec, { wrapper, socat });
    const launched = await launcher.launch({
      file: prlimit,
      args: ["--core=0", `--fsize=${limits.fileBytes}`, "--", bwrap, ...command],
      options: bwrapOptions({ spec, system: this.#system, etcDir: runtime.etcDir })
        .map((option) => `${option}\0`)
        .join(""),
      filter: this.#filter,
      uid: slot.uid,
      gid: slot.gid,
      join: [...group.join],
      watch: group.watched ? { memoryBytes: limits.memoryBytes, processes: limits.processes } : null,
      terminal,
    });
    group.attach(launched.pid);
    return launched;
  }

  /**
   * Sources in the slot must stand directly in its directory: that one no sandbox can write to, so no link
   * can have been put in the way. Others are the server's own, made readable for the slot's user.
   */
  async #resolveMount(mount: SandboxMount, slot: Slot): Promise<SandboxMount> {
    const inSlot = mount.source.startsWith(`${slot.dir}/`);
    if (inSlot && dirname(mount.source) !== slot.dir) {
      throw new AppError("InvalidParams", `${mount.source} is not directly in the slot's directory.`, {
        hint: "Make the directory to mount with slot.makeDir(name).",
      });
    }
    const found = await stat(mount.source).catch(() => undefined);
    if (found === undefined)
      throw new AppError("NotFound", `The mount source ${mount.source} does not exist.`);
    return inSlot ? mount : { ...mount, source: await this.#input.runtime.reachable(mount.source) };
  }

  /** Connecting to a socket takes the right to write to it. */
  async #openBridge(socketPath: string, slot: Slot): Promise<void> {
    if ((await stat(socketPath).catch(() => undefined))?.isSocket() !== true) {
      throw new AppError("NotFound", `There is no socket at ${socketPath}.`);
    }
    if (slot.uid === null || slot.gid === null) return;
    await chown(socketPath, slot.uid, slot.gid);
    await chmod(socketPath, 0o600);
  }
}
