import { AppError, toAppError } from "#schemas";
import { notAvailable } from "./availability.ts";
import { RunEngine } from "./engines/run/engine.ts";
import { newInstanceName } from "./instance.ts";
import { noteLauncher } from "./janitor/orphan-directories.ts";
import { orphanSources } from "./janitor/orphans.ts";
import { clearOrphans } from "./janitor/removal.ts";
import type { CleanSource } from "./janitor/source.ts";
import { LauncherClient } from "./launcher/client.ts";
import { openCgroup1 } from "./limits/cgroup1.ts";
import { openCgroup2 } from "./limits/cgroup2.ts";
import type { LimitDriver } from "./limits/limits.ts";
import { openRlimits } from "./limits/rlimits.ts";
import { findScopeCommand, type ScopeCommand } from "./limits/systemd.ts";
import { probe } from "./probe.ts";
import { openRuntime, type Runtime } from "./runtime.ts";
import { Slots } from "./slots.ts";
import type { Availability, LimitTier, SandboxLog, SandboxProcess, SandboxSpec } from "./types.ts";

const DEFAULT_SLOTS = 256;
/** For one removal of what an earlier server left, before this one starts. */
const REMOVAL_MS = 120_000;

export interface SandboxesOptions {
  dataDir: string;
  log: SandboxLog;
  /** Start of the names of slots' directories. */
  tempDirPrefix?: string;
  /** Slots that can be held at once. */
  slots?: number;
  /** Use this way of limiting only; without it the best one that works here. */
  tier?: LimitTier;
}

/** What engines build on that start programs of their own (a module's host, a virtual machine). */
export interface SandboxHost {
  readonly slots: Slots;
  /** Start a program, as the run engine does. */
  start(spec: SandboxSpec, signal?: AbortSignal): Promise<SandboxProcess>;
  /** A path to `source` that every slot's user can read: itself, or a link or copy where it is locked away. */
  reachable(source: string): Promise<string>;
}

export interface Sandboxes extends SandboxHost, AsyncDisposable {
  readonly tier: LimitTier;
  readonly run: RunEngine;
  /** What servers leave that were killed, for a janitor to look at again and again. */
  readonly orphans: readonly CleanSource[];
  /** Where slots' directories stand. */
  readonly directory: string;
  /** Pid of the launcher process, for those who watch over it. */
  readonly launcherPid: number | undefined;
  /** Whether programs can be run here at all: without that, nothing else of the sandbox can work. */
  probe(): Promise<Availability>;
  close(): Promise<void>;
}

interface Limiting {
  tier: LimitTier;
  driver: LimitDriver;
  scope?: ScopeCommand;
}

/** The first way of limiting that works, tried in the order of how much it holds. */
async function chooseLimits(
  instance: string,
  wanted: LimitTier | undefined,
  log: SandboxLog,
): Promise<Limiting> {
  const ways: [LimitTier, () => Promise<Omit<Limiting, "tier">>][] = [
    ["cgroup2", async () => ({ driver: await openCgroup2(instance) })],
    ["cgroup1", async () => ({ driver: await openCgroup1(instance) })],
    [
      "systemd",
      async () => {
        const scope = await findScopeCommand();
        if (scope === undefined) throw new Error("no scope of systemd for us");
        // Until the launcher is in its scope and says where that is.
        return { driver: openRlimits(), scope };
      },
    ],
    ["rlimits", async () => ({ driver: openRlimits() })],
  ];
  for (const [tier, open] of ways.filter(([name]) => wanted === undefined || name === wanted)) {
    try {
      return { tier, ...(await open()) };
    } catch (error) {
      log.debug({ tier, err: error }, "this way of limiting sandboxes does not work here");
    }
  }
  throw new AppError("EngineUnavailable", `Sandboxes cannot be limited by ${wanted} on this machine.`);
}

class OpenSandboxes implements Sandboxes {
  readonly slots: Slots;
  readonly run: RunEngine;
  readonly #runtime: Runtime;
  readonly #limiting: Limiting;
  readonly #launcher: LauncherClient;
  readonly orphans: readonly CleanSource[];
  #closing: Promise<void> | undefined;

  constructor(parts: {
    runtime: Runtime;
    limiting: Limiting;
    launcher: LauncherClient;
    engine: RunEngine;
    orphans: readonly CleanSource[];
    options: SandboxesOptions;
  }) {
    this.#runtime = parts.runtime;
    this.#limiting = parts.limiting;
    this.#launcher = parts.launcher;
    this.run = parts.engine;
    this.orphans = parts.orphans;
    this.slots = new Slots({
      runtime: parts.runtime,
      size: parts.options.slots ?? DEFAULT_SLOTS,
      prefix: parts.options.tempDirPrefix ?? "cds-",
      log: parts.options.log,
      endAll: (slot) => parts.engine.endAll(slot),
    });
  }

  get tier(): LimitTier {
    return this.#limiting.tier;
  }

  get directory(): string {
    return this.#runtime.dir;
  }

  get launcherPid(): number | undefined {
    return this.#launcher.pid;
  }

  start(spec: SandboxSpec, signal?: AbortSignal): Promise<SandboxProcess> {
    return this.run.start(spec, signal);
  }

  probe(): Promise<Availability> {
    return this.run.probe();
  }

  reachable(source: string): Promise<string> {
    return this.#runtime.reachable(source);
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async #closeAll(): Promise<void> {
    await this.run.close();
    await this.slots.close();
    await this.#launcher.close();
    await this.#limiting.driver.close();
    await this.#runtime.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Open the sandbox: starts the launcher (so call it early, while this process is small), finds out how
 * limits can be enforced, and clears away what a crashed server left. Throws AppError EngineUnavailable on a
 * machine that cannot have one; `probe` tells whether sandboxes really start.
 */
export async function openSandboxes(options: SandboxesOptions): Promise<Sandboxes> {
  if (process.platform !== "linux") {
    throw new AppError("EngineUnavailable", "Sandboxed runs need Linux.", {
      hint: "Run the server in a Linux machine, virtual machine or container.",
    });
  }
  const { dataDir, log } = options;
  const instance = newInstanceName();
  const closers: (() => Promise<void>)[] = [];
  try {
    const limiting = await chooseLimits(instance, options.tier, log);
    closers.push(() => limiting.driver.close());
    const runtime = await openRuntime({ dataDir, instance, slots: options.slots ?? DEFAULT_SLOTS });
    closers.push(() => runtime.close());
    const orphans = orphanSources({ base: runtime.base, own: runtime.dir });
    await clearOrphans(orphans, log, REMOVAL_MS);
    const { scope } = limiting;
    const launcher = await LauncherClient.open({
      instance,
      socketDir: runtime.privateSocketDir,
      log,
      ...(scope === undefined ? {} : { through: scope }),
      onReady: async (root) => {
        await noteLauncher(runtime.dir, root.pid);
        if (scope !== undefined) limiting.driver = await openCgroup2(instance, root);
      },
    });
    closers.push(() => launcher.close());
    const engine = await RunEngine.open({
      runtime,
      launcher,
      limits: () => limiting.driver,
      probe: () => probe(sandboxes),
      log,
    });
    const sandboxes = new OpenSandboxes({ runtime, limiting, launcher, engine, orphans, options });
    log.debug({ tier: limiting.tier, directory: runtime.dir }, "sandbox ready");
    return sandboxes;
  } catch (error) {
    for (const close of closers.reverse()) await close().catch(() => undefined);
    if (error instanceof AppError) throw error;
    log.error({ err: error }, "the sandbox cannot be set up");
    throw new AppError("EngineUnavailable", "The sandbox cannot be set up.", {}, toAppError(error));
  }
}

/** The same for a program that runs no sandboxes itself (`doctor`): opens, tries, closes; never throws. */
export async function probeSandbox(options: SandboxesOptions): Promise<Availability> {
  try {
    await using sandboxes = await openSandboxes(options);
    return await sandboxes.probe();
  } catch (error) {
    return notAvailable(error);
  }
}
