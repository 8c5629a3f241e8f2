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

/** What to do when bubblewrap may not make its namespaces, by the switches that forbid it. */
export function explain(readFile: (path: string) => string | undefined = readSystemFile): string {
  if (readFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") === "1") {
    return `AppArmor forbids bubblewrap its namespaces (Ubuntu 23.10 and later). As root: cp ${PROFILE} /etc/apparmor.d/bwrap && apparmor_parser -r /etc/apparmor.d/bwrap`;
  }
  if (readFile("/proc/sys/kernel/unprivileged_userns_clone") === "0") {
    return "The kernel forbids user namespaces. As root: sysctl -w kernel.unprivileged_userns_clone=1";
  }
  if (readFile("/proc/sys/user/max_user_namespaces") === "0") {
    return "The kernel allows no user namespaces. As root: sysctl -w user.max_user_namespaces=15000";
  }
  return "In a container, allow user namespaces (docker: --security-opt seccomp=unconfined --security-opt systempaths=unconfined).";
}

type Trial = Pick<Sandboxes, "slots" | "start" | "tier">;

async function trial(sandboxes: Trial): Promise<string | undefined> {
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
export async function probe(sandboxes: Trial): Promise<Availability> {
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
    return { available: false, tier: null, reasons: [failure], hint: explain() };
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
