/** The sandbox's face: how anything of a user's is run, and how files it controls are touched. */

export { Jail, type JailEntry, type JailFile, type JailOptions } from "./engines/fs/jail.ts";
export type { SkipReason, WalkEntry, WalkOptions, WalkResult } from "./engines/fs/walk.ts";
export { type DirectoryWatch, type WatchOptions, watchDirectory } from "./engines/fs/watch.ts";
export { type Engines, openEngines } from "./engines/index.ts";
export type { ExecuteRequest } from "./engines/micro/command.ts";
export type { MicroEngine } from "./engines/micro/engine.ts";
export type { SnapshotInfo } from "./engines/micro/snapshots.ts";
export type { Vm } from "./engines/micro/vm.ts";
export {
  type Command,
  type CommandOptions,
  type CommandResult,
  type OutputName,
  startCommand,
} from "./engines/run/command.ts";
export { type Language, languages } from "./engines/run/languages.ts";
export { withNode } from "./engines/run/node-mounts.ts";
export type { WasmEngine } from "./engines/wasm/engine.ts";
export type { WasmFiles, WasmInstance } from "./engines/wasm/types.ts";
export { type Janitor, type JanitorOptions, openJanitor } from "./janitor/janitor.ts";
export type { Candidate, CleanSource } from "./janitor/source.ts";
export { NetworkGrants } from "./network/grants.ts";
export type { NetworkAccess } from "./network/index.ts";
export { operation } from "./operations.ts";
export {
  openSandboxes,
  probeSandbox,
  type Sandboxes,
  type SandboxesOptions,
  type SandboxHost,
} from "./sandboxes.ts";
export { ownerOf, type Slot, type Slots } from "./slots.ts";
export type {
  Availability,
  Engine,
  EngineName,
  Instance,
  LimitName,
  LimitTier,
  SandboxBridge,
  SandboxExit,
  SandboxLimits,
  SandboxLog,
  SandboxMount,
  SandboxProcess,
  SandboxSpec,
  SandboxStats,
  SandboxTerminal,
  SandboxTree,
} from "./types.ts";
