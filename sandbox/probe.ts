import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { toAppError } from "#schemas";
import { missingPrograms, NEEDED } from "./engines/run/engine.ts";
import { readSystemFile } from "./host.ts";
import type { Sandboxes } from "./sandboxes.ts";
import type { Availability } from "./types.ts";

const TRIAL_MS = 10_000;
const MAX_TEXT = 2000;
const MIB = 1024 * 1024;
const PROFILE = "docs/apparmor/bwrap";

async function textOf(stream: Readable): Promise<string> {
  let text = "";
  for await (const chunk of stream) if (text.length < MAX_TEXT) text += String(chunk);
  return text.trim();
}

/** Why bubblewrap may not make its namespaces, from the switches that forbid it. */
function namespaceHint(): string | undefined {
  if (readSystemFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") === "1") {
    return `AppArmor forbids bubblewrap its namespaces (Ubuntu 23.10 and later). Copy ${PROFILE} to /etc/apparmor.d/bwrap and run: apparmor_parser -r /etc/apparmor.d/bwrap`;
  }
  if (readSystemFile("/proc/sys/kernel/unprivileged_userns_clone") === "0") {
    return "The kernel forbids user namespaces; as root: sysctl -w kernel.unprivileged_userns_clone=1";
  }
  if (readSystemFile("/proc/sys/user/max_user_namespaces") === "0") {
    return "The kernel allows no user namespaces; as root: sysctl -w user.max_user_namespaces=15000";
  }
  return undefined;
}

const CONTAINER_HINT =
  "In a container, allow user namespaces (docker: --security-opt seccomp=unconfined --security-opt systempaths=unconfined).";

async function trial(sandboxes: Sandboxes): Promise<string | undefined> {
  const slot = await sandboxes.slots.acquire(AbortSignal.timeout(TRIAL_MS));
  try {
    await using process = await sandboxes.start({
      name: "probe",
      argv: ["true"],
      env: {},
      cwd: "/",
      mounts: [],
      limits: { memoryBytes: 64 * MIB, processes: 8, fileBytes: MIB, tmpBytes: MIB },
      slot,
    });
    const errors = textOf(process.stderr);
    process.stdout.resume();
    const exit = await Promise.race([process.exited, sleep(TRIAL_MS, undefined, { ref: false })]);
    if (exit === undefined) return "A trial sandbox did not end in time.";
    if (exit.code === 0) return undefined;
    return `A trial sandbox failed: ${(await errors) || `exit code ${exit.code ?? exit.signal}`}`;
  } finally {
    await slot.release();
  }
}

/** Whether sandboxes work here, found out by starting one; with what to do when not. */
export async function probe(sandboxes: Sandboxes): Promise<Availability> {
  const missing = missingPrograms();
  if (missing.length > 0) {
    const packages = [...new Set(missing.map((name) => NEEDED[name]))];
    return {
      available: false,
      tier: null,
      reasons: [`Not installed: ${missing.join(", ")}.`],
      hint: `Install: ${packages.join(" ")}.`,
    };
  }
  const failure = await trial(sandboxes).catch((error: unknown) => toAppError(error).message);
  if (failure !== undefined) {
    return { available: false, tier: null, reasons: [failure], hint: namespaceHint() ?? CONTAINER_HINT };
  }
  const { tier } = sandboxes;
  if (tier !== "rlimits") return { available: true, tier, reasons: [] };
  return {
    available: true,
    tier,
    reasons: ["No control group is ours: limits hold per process, memory by a look every 250 ms."],
    hint: "Run the server as a systemd service with Delegate=yes, or under systemd --user, for exact limits.",
  };
}
