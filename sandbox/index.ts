/** The sandbox's face: how anything of a user's is run, and how files it controls are touched. */
export { Jail, type JailEntry, type JailFile, type JailOptions } from "./engines/fs/jail.ts";
export type { SkipReason, WalkEntry, WalkOptions, WalkResult } from "./engines/fs/walk.ts";
export {
  openSandboxes,
  probeSandbox,
  type Sandboxes,
  type SandboxesOptions,
  type SandboxHost,
} from "./sandboxes.ts";
export type { Slot, Slots } from "./slots.ts";
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
} from "./types.ts";
