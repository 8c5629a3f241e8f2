import { chmod, mkdir } from "node:fs/promises";
import { AppError } from "#schemas";
import { operation } from "../../operations.ts";
import type { SandboxHost } from "../../sandboxes.ts";
import type { Availability, Engine, SandboxLog } from "../../types.ts";
import { commandOf } from "./command.ts";
import type { DriverVm, MachineSpec, MicroDriver } from "./driver.ts";
import { MicrosandboxDriver } from "./microsandbox/driver.ts";
import { WarmPool } from "./pool.ts";
import { QemuDriver } from "./qemu/driver.ts";
import { reconcileMicro } from "./reconcile.ts";
import { isDefault, MICRO_DEFAULTS, type MicroSettings, machineOf, type VmSpec } from "./settings.ts";
import { type SnapshotInfo, Snapshots } from "./snapshots.ts";
import { MicroVm, type Vm } from "./vm.ts";

export interface MicroEngineInput {
  host: SandboxHost;
  /** The engine's own directory in the data directory: snapshots, and templates where shared memory has no room. */
  dir: string;
  /** What differs from MICRO_DEFAULTS. */
  settings?: Partial<MicroSettings>;
  log: SandboxLog;
  /** Directory of the images; without it the one `npm run micro` fills. */
  imageDir?: string;
  /** Ways to try, in this order; without it all. */
  drivers?: readonly MicroDriver["name"][];
}

/** Virtual machines for code of users, through whichever driver works here. */
export class MicroEngine implements Engine<VmSpec, Vm> {
  readonly name = "micro";
  readonly #settings: MicroSettings;
  readonly #drivers: readonly MicroDriver[];
  readonly #snapshots: Snapshots;
  readonly #pool: WarmPool;
  readonly #machines = new Set<MicroVm>();
  /** Machines that exist or are being made, and their host memory; those kept ready included. */
  readonly #held = { machines: 0, bytes: 0 };
  readonly #starting = new Set<Promise<unknown>>();
  readonly #stop = new AbortController();
  #found: Promise<{ driver: MicroDriver | undefined; availability: Availability }> | undefined;
  #closing: Promise<void> | undefined;

  private constructor(parts: {
    drivers: readonly MicroDriver[];
    settings: MicroSettings;
    snapshots: Snapshots;
    log: SandboxLog;
  }) {
    this.#drivers = parts.drivers;
    this.#settings = parts.settings;
    this.#snapshots = parts.snapshots;
    const { warm, reserveBytes } = parts.settings;
    this.#pool = new WarmPool({
      wanted: warm,
      reserveBytes,
      make: (image, signal) => this.#makeSpare({ image, ...parts.settings.defaults }, signal),
      log: parts.log,
    });
  }

  /** Removes what dead servers left, reads the snapshots, and begins to fill the pool. Starts nothing else. */
  static async open(input: MicroEngineInput): Promise<MicroEngine> {
    const { host, dir, log, imageDir } = input;
    const settings = { ...MICRO_DEFAULTS, ...input.settings };
    await mkdir(dir, { recursive: true, mode: 0o711 });
    await chmod(dir, 0o711);
    await reconcileMicro(dir, log);
    const snapshots = await Snapshots.open(dir, settings.snapshots, log);
    const { memoryBytes, cpus } = settings.defaults;
    const all: Record<MicroDriver["name"], () => MicroDriver> = {
      microsandbox: () => new MicrosandboxDriver({ host, imageDir, log }),
      qemu: () => new QemuDriver({ host, dir, log, imageDir, size: { memoryBytes, cpus } }),
    };
    const drivers = (input.drivers ?? (["microsandbox", "qemu"] as const)).map((name) => all[name]());
    return new MicroEngine({ drivers, settings, snapshots, log });
  }

  async probe(): Promise<Availability> {
    const { availability } = await this.#find();
    return availability;
  }

  /** How many machines are ready to be given away. */
  get warm(): number {
    return this.#pool.size;
  }

  /** Resolves when the pool is as full as it gets. */
  warmed(): Promise<void> {
    return this.#pool.settled();
  }

  list(): readonly Vm[] {
    return [...this.#machines];
  }

  start(spec: VmSpec): Promise<Vm> {
    return operation(this.name, "start", { image: spec.image }, async () => {
      const machine = machineOf(spec, this.#settings);
      const ready = isDefault(machine, this.#settings) ? await this.#pool.take(machine.image) : undefined;
      if (ready !== undefined) return this.#handOut(ready, machine);
      return this.#track(
        (signal) => this.#make(machine, (driver) => driver.start(machine, signal)),
        machine,
        spec.signal,
      );
    });
  }

  /** A new machine that goes on from a snapshot, with entropy and time of its own. Throws AppError NotFound. */
  restore(snapshotId: string, options: { idleMs?: number; signal?: AbortSignal } = {}): Promise<Vm> {
    return operation(this.name, "restore", {}, async () => {
      const snapshot = this.#snapshots.get(snapshotId);
      const { idleMs, signal: wanted } = options;
      const machine = machineOf(
        { ...snapshot.machine, ...(idleMs === undefined ? {} : { idleMs }) },
        this.#settings,
      );
      return this.#track(
        (signal) => this.#make(machine, (driver) => this.#restoreBy(driver, snapshot, signal)),
        machine,
        wanted,
      );
    });
  }

  snapshots(): readonly SnapshotInfo[] {
    return this.#snapshots.list();
  }

  /** Throws AppError NotFound. Machines restored from it live on. */
  deleteSnapshot(id: string): Promise<void> {
    return operation(this.name, "delete_snapshot", {}, () => this.#snapshots.delete(id));
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async #closeAll(): Promise<void> {
    this.#stop.abort();
    await this.#pool.close();
    await Promise.allSettled(this.#starting);
    await Promise.all([...this.#machines].map((vm) => vm.driven.stop()));
    await Promise.all(this.#drivers.map((driver) => driver.close()));
  }

  /** The first driver with which a machine really boots. What fails is tried again by the next who asks. */
  async #find(): Promise<{ driver: MicroDriver | undefined; availability: Availability }> {
    this.#found ??= this.#probeAll();
    const found = await this.#found;
    if (found.driver === undefined) this.#found = undefined;
    return found;
  }

  async #probeAll(): Promise<{ driver: MicroDriver | undefined; availability: Availability }> {
    const reasons: string[] = [];
    let hint: string | undefined;
    for (const driver of this.#drivers) {
      const availability = await driver.probe();
      if (availability.available) return { driver, availability };
      reasons.push(...availability.reasons.map((reason) => `${driver.name}: ${reason}`));
      hint = availability.hint ?? hint;
    }
    const availability = { available: false, tier: null, reasons, ...(hint === undefined ? {} : { hint }) };
    return { driver: undefined, availability };
  }

  async #driver(): Promise<MicroDriver> {
    const { driver, availability } = await this.#find();
    if (driver !== undefined) return driver;
    const { reasons, hint } = availability;
    throw new AppError(
      "EngineUnavailable",
      `No virtual machine can be started here. ${reasons.join(" ")}`,
      hint === undefined ? {} : { hint },
    );
  }

  async #restoreBy(driver: MicroDriver, snapshot: SnapshotInfo, signal: AbortSignal): Promise<DriverVm> {
    if (snapshot.driver !== driver.name || snapshot.fingerprint !== (await driver.fingerprint())) {
      throw new AppError(
        "EngineUnavailable",
        "The snapshot was taken with other images or another emulator.",
        {
          hint: "Delete it, and take a new one.",
        },
      );
    }
    return driver.restore(snapshot.machine, this.#snapshots.directory(snapshot.id), signal);
  }

  /** A start that `close` ends and waits for. */
  async #track(
    make: (signal: AbortSignal) => Promise<DriverVm>,
    machine: MachineSpec & { idleMs: number },
    wanted: AbortSignal | undefined,
  ): Promise<Vm> {
    if (this.#stop.signal.aborted) throw shutDown();
    const signal = wanted === undefined ? this.#stop.signal : AbortSignal.any([this.#stop.signal, wanted]);
    const making = make(signal).then((driven) => this.#handOut(driven, machine));
    this.#starting.add(making);
    try {
      return await making;
    } catch (error) {
      throw this.#stop.signal.aborted ? shutDown() : error;
    } finally {
      this.#starting.delete(making);
    }
  }

  async #handOut(driven: DriverVm, machine: MachineSpec & { idleMs: number }): Promise<Vm> {
    if (this.#stop.signal.aborted) {
      await driven.stop();
      throw shutDown();
    }
    const vm = new MicroVm({ machine, driven, save: (each) => this.#save(each) });
    this.#machines.add(vm);
    void vm.exited.then(() => this.#machines.delete(vm));
    return vm;
  }

  async #save(vm: MicroVm): Promise<string> {
    const driver = await this.#driver();
    const { idleMs: _, ...machine } = vm.machine;
    const about = { driver: driver.name, fingerprint: await driver.fingerprint(), machine };
    return this.#snapshots.add(about, (dir, maxBytes) => vm.driven.snapshot(dir, maxBytes));
  }

  /** One more machine within the limits; those kept ready make way for it. Throws AppError Unavailable when full. */
  async #make(machine: MachineSpec, act: (driver: MicroDriver) => Promise<DriverVm>): Promise<DriverVm> {
    const driver = await this.#driver();
    const bytes = machine.memoryBytes + driver.overheadBytes;
    while (!this.#hasRoom(bytes)) if (!(await this.#pool.giveUp())) throw full();
    return this.#hold(bytes, () => act(driver));
  }

  async #makeSpare(machine: MachineSpec, signal: AbortSignal): Promise<DriverVm | undefined> {
    const driver = await this.#driver();
    const bytes = machine.memoryBytes + driver.overheadBytes;
    if (signal.aborted || !this.#hasRoom(bytes)) return undefined;
    return this.#hold(bytes, async () => {
      const vm = await driver.start(machine, signal);
      try {
        // Its interpreter has been read from disk and translated once when somebody wants it.
        await vm.execute(commandOf({ code: "", signal }, machine.image, 0));
        return vm;
      } catch (error) {
        await vm.stop();
        throw error;
      }
    });
  }

  #hasRoom(bytes: number): boolean {
    const { maxMachines, maxMemoryBytes } = this.#settings;
    return this.#held.machines < maxMachines && this.#held.bytes + bytes <= maxMemoryBytes;
  }

  async #hold(bytes: number, make: () => Promise<DriverVm>): Promise<DriverVm> {
    const give = (sign: 1 | -1) => {
      this.#held.machines += sign;
      this.#held.bytes += sign * bytes;
    };
    give(1);
    try {
      const vm = await make();
      void vm.exited.then(() => give(-1));
      return vm;
    } catch (error) {
      give(-1);
      throw error;
    }
  }
}

const shutDown = () => new AppError("Unavailable", "The micro engine is shutting down.");

const full = () =>
  new AppError("Unavailable", "There are as many virtual machines as this server can hold.", {
    hint: "Wait until one ends, or end one of yours.",
    retry_after_seconds: 10,
  });
