import { posix } from "node:path";
import { AppError } from "#schemas";
import type { SandboxMount, SandboxSpec } from "../../types.ts";

/** Owned by the sandbox itself; nothing is mounted there or below. */
const RESERVED = [
  "/usr",
  "/bin",
  "/sbin",
  "/lib",
  "/lib32",
  "/lib64",
  "/libx32",
  "/etc",
  "/proc",
  "/dev",
  "/sys",
];
const GATEWAY = "/run/gateway.sock";
/** What Linux takes as one argument or variable (MAX_ARG_STRLEN), its end included, and less than what it takes in all. */
const MAX_TEXT_BYTES = 128 * 1024 - 1;
const MAX_ALL_BYTES = 1024 * 1024;
/** bubblewrap takes 9000 words, of which a variable is three. */
const MAX_WORDS = 2000;

function refuse(message: string, hint: string): never {
  throw new AppError("InvalidParams", message, { hint });
}

const within = (path: string, directory: string) =>
  path === directory || path.startsWith(directory === "/" ? "/" : `${directory}/`);

function checkPath(what: string, path: string): void {
  if (!path.startsWith("/") || posix.normalize(path) !== path || path.endsWith("/") || path.includes("\0")) {
    refuse(
      `The ${what} ${JSON.stringify(path)} is not an absolute, normal path.`,
      "No `..`, no `//`, no `/` at the end.",
    );
  }
}

function checkText(what: string, text: string): void {
  if (text.includes("\0")) refuse(`The ${what} holds a NUL byte.`, "A NUL would end it for the kernel.");
  if (Buffer.byteLength(text) > MAX_TEXT_BYTES) {
    refuse(`The ${what} is longer than ${MAX_TEXT_BYTES} bytes.`, "Put it into a file, or into the input.");
  }
}

function checkAmount(words: readonly string[]): void {
  const bytes = words.reduce((sum, word) => sum + Buffer.byteLength(word) + 1, 0);
  if (words.length <= MAX_WORDS && bytes <= MAX_ALL_BYTES) return;
  refuse(
    `The command and its environment are ${words.length} words and ${bytes} bytes.`,
    `${MAX_WORDS} words and ${MAX_ALL_BYTES} bytes at most: put long lists into a file.`,
  );
}

function checkMount(mount: SandboxMount, slotDir: string): void {
  checkPath("mount source", mount.source);
  checkPath("mount target", mount.target);
  if (RESERVED.some((path) => within(mount.target, path)) || within(GATEWAY, mount.target)) {
    refuse(`Nothing can be mounted at ${mount.target}.`, "Choose a path outside the system directories.");
  }
  if (mount.mode === "rw" && (mount.source === slotDir || !within(mount.source, slotDir))) {
    refuse(
      `${mount.source} is not inside the slot's directory, so it cannot be writable in a sandbox.`,
      "Make a directory with slot.makeDir(name) and mount that.",
    );
  }
}

/**
 * No mount inside another, inside or outside: bubblewrap makes missing mount points, and in a tree that
 * earlier runs could write to, it would follow the links they left.
 */
function checkOverlap(mounts: readonly SandboxMount[]): void {
  for (const [index, mount] of mounts.entries()) {
    for (const other of mounts.slice(index + 1)) {
      if (within(mount.target, other.target) || within(other.target, mount.target)) {
        refuse(
          `The mounts ${mount.target} and ${other.target} lie inside each other.`,
          "Mount them side by side (for a HOME: point XDG_CONFIG_HOME and the like elsewhere).",
        );
      }
      const outer = within(mount.source, other.source)
        ? other
        : within(other.source, mount.source)
          ? mount
          : null;
      if (outer?.mode === "rw" && mount.source !== other.source) {
        refuse(
          `The mount sources ${mount.source} and ${other.source} lie inside each other.`,
          "What a sandbox can write to may hold links to anywhere: mount directories that are side by side.",
        );
      }
    }
  }
}

function checkLimits(limits: SandboxSpec["limits"]): void {
  for (const [name, value] of Object.entries(limits)) {
    const whole = name === "cpus" ? Number.isFinite(value) : Number.isSafeInteger(value);
    if (!whole || value <= 0) refuse(`The limit ${name} is ${value}.`, "Limits are positive numbers.");
  }
}

/** Refuse (AppError InvalidParams) what could not be isolated safely or would be misread on the way in. */
export function checkSpec(spec: SandboxSpec): void {
  if (!/^[A-Za-z0-9-]{1,64}$/.test(spec.name))
    refuse("The sandbox has no usable name.", "Letters, digits and `-`.");
  if (spec.argv[0] === undefined || spec.argv[0] === "")
    refuse("There is no program to run.", "argv[0] names it.");
  for (const argument of spec.argv) checkText("command", argument);
  for (const [name, value] of Object.entries(spec.env)) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
      refuse(`${JSON.stringify(name)} names no variable.`, "As in a shell.");
    checkText(`variable ${name}`, `${name}=${value}`);
  }
  checkAmount([...spec.argv, ...Object.entries(spec.env).map(([name, value]) => `${name}=${value}`)]);
  if (spec.cwd !== "/") checkPath("working directory", spec.cwd);
  for (const mount of spec.mounts) checkMount(mount, spec.slot.dir);
  checkOverlap(spec.mounts);
  checkLimits(spec.limits);
  if (spec.bridge === undefined) return;
  checkPath("bridge socket", spec.bridge.socketPath);
  const { port } = spec.bridge;
  if (!Number.isInteger(port) || port < 1024 || port > 65_535)
    refuse(`${port} is no bridge port.`, "1024 to 65535.");
}
