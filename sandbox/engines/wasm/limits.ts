const MIB = 1024 * 1024;

/** Limits of the engine; what a module itself may hold stands in `meter/limits.ts`. */
export const WASM_LIMITS = {
  /** Modules open at once in one domain, and in all. */
  instancesPerDomain: 16,
  instances: 256,
  /** Calls of one instance that wait for their turn. */
  waitingCalls: 16,
  /** Memory of one domain's modules together, and of one that does not say how much it wants. */
  domainMemoryBytes: 512 * MIB,
  defaultMemoryBytes: 64 * MIB,
  /** For the host itself: Node, threads, compiled code. */
  hostMemoryBytes: 384 * MIB,
  hostProcesses: 128,
  /** Fuel of one call. */
  defaultFuel: 10_000_000_000,
  maxFuel: 1e15,
  defaultTimeoutMs: 10_000,
  maxTimeoutMs: 86_400_000,
  /** Includes the start of a thread, which takes long on a machine that is busy. */
  loadTimeoutMs: 60_000,
  /** What a host may take to answer beyond the time it was told, before it is killed. */
  graceMs: 3000,
  startTimeoutMs: 30_000,
  /** A domain without a module is forgotten after this. */
  idleMs: 60_000,
  outputBytes: MIB,
  /** Arguments, variables and standard input of a module. */
  args: 256,
  argsBytes: 128 * 1024,
  stdinBytes: 8 * MIB,
  fileBytes: 16 * MIB,
  fileEntries: 10_000,
  /** The longest wait for one answer of the caller's files; shorter than the host waits. */
  fileTimeoutMs: 20_000,
} as const;
