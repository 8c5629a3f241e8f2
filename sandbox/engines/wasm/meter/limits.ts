/** What a module may hold; each is far beyond what compilers produce, and none is above V8's own limit. */
export const MODULE_LIMITS = {
  /** The whole file. */
  moduleBytes: 32 * 1024 * 1024,
  types: 100_000,
  functions: 300_000,
  imports: 10_000,
  exports: 10_000,
  globals: 100_000,
  tables: 64,
  /** Elements of all tables together. */
  tableElements: 1_000_000,
  /** Parameters and locals of one function. */
  locals: 40_000,
  params: 1000,
  results: 1000,
  /** Code of one function. */
  functionBytes: 7_000_000,
  /** Blocks inside each other. */
  nesting: 20_000,
  nameBytes: 10_000,
  /** Memory that any instance can ever have, in pages of 64 KiB: 1 GiB. */
  memoryPages: 16_384,
} as const;

export const PAGE_BYTES = 65_536;

/** Stack that the frames of one call may take, bytes as estimated by `scan.ts`; the real stack is eight times as large. */
export const STACK_BUDGET = 32 * 1024 * 1024;
