import { AppError } from "#schemas";
import type { MachineSpec, MicroImageName } from "./driver.ts";

const MIB = 1024 * 1024;

/** What an operator can set. Bytes, counts and ms. */
export interface MicroSettings {
  /** Size of a machine when its caller names none; machines of this size are kept ready. */
  defaults: Omit<MachineSpec, "image">;
  /** Machines at once, those kept ready included. */
  maxMachines: number;
  /** Host memory of all machines together. */
  maxMemoryBytes: number;
  /** The largest machine anybody may ask for. */
  maxMachineBytes: number;
  maxCpus: number;
  /** Machines kept ready per image: restored, and never used by anybody. */
  warm: Record<MicroImageName, number>;
  /** Below this much free memory of the host, no machine is kept ready. */
  reserveBytes: number;
  /** A machine that nobody uses for so long is ended. */
  idleMs: number;
  snapshots: { maxCount: number; maxBytes: number };
}

export const MICRO_DEFAULTS: MicroSettings = {
  defaults: { memoryBytes: 256 * MIB, cpus: 1, diskBytes: 96 * MIB },
  maxMachines: 32,
  maxMemoryBytes: 8192 * MIB,
  maxMachineBytes: 2048 * MIB,
  maxCpus: 4,
  warm: { node: 0, python: 0 },
  reserveBytes: 1024 * MIB,
  idleMs: 10 * 60_000,
  snapshots: { maxCount: 32, maxBytes: 8192 * MIB },
};

/** Kernel, agent and one interpreter do not fit into less. */
const MIN_MEMORY_BYTES = 128 * MIB;
const MIN_DISK_BYTES = MIB;
const MIN_IDLE_MS = 1000;

/** What is asked for when a machine is started. */
export interface VmSpec extends Partial<Omit<MachineSpec, "image">> {
  image: MicroImageName;
  idleMs?: number;
  /** Ends the wait for the machine. */
  signal?: AbortSignal;
  /** Machines have no network; anything but `none` is refused. */
  network?: "none";
}

export function refuse(message: string, hint: string): never {
  throw new AppError("InvalidParams", message, { hint });
}

/** Throws AppError InvalidParams unless it is a number from `low` to `high`, whole unless `fraction`. */
export function checkNumber(what: string, value: number, low: number, high: number): number {
  if (Number.isSafeInteger(value) && value >= low && value <= high) return value;
  return refuse(`${what} is ${value}.`, `A whole number from ${low} to ${high}.`);
}

/** The machine's size with the defaults filled in. Throws AppError InvalidParams for one that makes no sense here. */
export function machineOf(spec: VmSpec, settings: MicroSettings): MachineSpec & { idleMs: number } {
  const { defaults, maxMachineBytes, maxCpus } = settings;
  if (spec.image !== "node" && spec.image !== "python") {
    refuse(`There is no image ${JSON.stringify(spec.image)}.`, "There are `node` and `python`.");
  }
  const network: unknown = spec.network;
  if (network !== undefined && network !== "none") {
    refuse("Virtual machines have no network.", "Give the machine what it needs as files.");
  }
  const wanted = checkNumber(
    "memoryBytes",
    spec.memoryBytes ?? defaults.memoryBytes,
    MIN_MEMORY_BYTES,
    maxMachineBytes,
  );
  // Whole MiB: the unit QEMU is told.
  const memoryBytes = Math.floor(wanted / MIB) * MIB;
  return {
    image: spec.image,
    memoryBytes,
    cpus: checkNumber("cpus", spec.cpus ?? defaults.cpus, 1, maxCpus),
    diskBytes: checkNumber(
      "diskBytes",
      spec.diskBytes ?? Math.min(defaults.diskBytes, memoryBytes),
      MIN_DISK_BYTES,
      memoryBytes,
    ),
    idleMs: checkNumber("idleMs", spec.idleMs ?? settings.idleMs, MIN_IDLE_MS, 24 * 3_600_000),
  };
}

export const isDefault = (machine: MachineSpec, { defaults }: MicroSettings) =>
  machine.memoryBytes === Math.floor(defaults.memoryBytes / MIB) * MIB &&
  machine.cpus === defaults.cpus &&
  machine.diskBytes === defaults.diskBytes;
