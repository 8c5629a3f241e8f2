import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { LimitTier } from "#sandbox";
import { makeReadableClone } from "#sandbox/testing/clone.ts";
import { openForTest } from "#sandbox/testing/harness.ts";
import { type Attack, carryOut, type Damage } from "./attack.ts";
import { processesNaming } from "./leftovers.ts";

const isRoot = process.getuid?.() === 0;

/** The best way this machine has, the one every machine has, and a server that is no root. */
export const HOSTS = [
  "the best limits",
  "rlimits",
  ...(isRoot ? (["an ordinary user"] as const) : []),
] as const;
export type HostName = "the best limits" | "rlimits" | "an ordinary user";

/** A server whose sandboxes are attacked. */
export interface AttackedHost extends AsyncDisposable {
  readonly tier: LimitTier;
  /** Whether limits hold for the sandbox as a whole, by the kernel. */
  readonly exact: boolean;
  readonly launcherPid: number;
  /** Carries it out; what is `left` includes every process of this machine that has its mark. */
  attack(attack: Attack): Promise<Damage>;
}

/** With a mark in its environment, which its children have too. */
async function marked(attack: Attack, act: (attack: Attack) => Promise<Damage>): Promise<Damage> {
  const mark = `attack-${randomBytes(8).toString("hex")}`;
  const damage = await act({ ...attack, env: { ...attack.env, ATTACK_MARK: mark } });
  return { ...damage, left: [...damage.left, ...processesNaming(mark)] };
}

async function openHere(tier: LimitTier | undefined): Promise<AttackedHost> {
  const opened = await openForTest(tier === undefined ? {} : { tier });
  const { sandboxes } = opened;
  return {
    tier: sandboxes.tier,
    exact: sandboxes.tier !== "rlimits",
    launcherPid: sandboxes.launcherPid ?? 0,
    attack: (attack) => marked(attack, (one) => carryOut(sandboxes, one)),
    [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
  };
}

interface Answer {
  id?: number;
  tier?: LimitTier;
  launcher?: number;
  damage?: Damage;
  error?: string;
}

/** A server in a process of its own, as the user nobody. `server` is that process, to be killed. */
export async function openAsNobody(): Promise<AttackedHost & { server: ChildProcess }> {
  const support = ["attack", "attack-child"].map((name) => `tests/support/${name}.ts`);
  const clone = await makeReadableClone(...support);
  const server = clone.start("tests/support/attack-child.ts");
  const { stdin, stdout } = server;
  if (stdin === null || stdout === null) throw new Error("started without pipes");
  const ended = once(server, "exit");
  const ready = Promise.withResolvers<Answer>();
  const waiting = new Map<number, (answer: Answer) => void>();
  createInterface({ input: stdout }).on("line", (line) => {
    const answer: Answer = JSON.parse(line);
    if (answer.id === undefined) ready.resolve(answer);
    else waiting.get(answer.id)?.(answer);
  });
  void ended.then(([code, signal]) => {
    const error = `the server ended: ${signal ?? code}`;
    ready.reject(new Error(error));
    for (const settle of waiting.values()) settle({ error });
  });
  stdin.on("error", () => undefined);
  const about = await ready.promise.catch(async (error: unknown) => {
    await clone[Symbol.asyncDispose]();
    throw error;
  });
  let count = 0;
  const ask = async (attack: Attack): Promise<Damage> => {
    count += 1;
    const id = count;
    const answered = new Promise<Answer>((resolve) => waiting.set(id, resolve));
    stdin.write(`${JSON.stringify({ id, attack })}\n`);
    const { damage, error } = await answered;
    waiting.delete(id);
    if (damage === undefined) throw new Error(error);
    return damage;
  };
  return {
    server,
    tier: about.tier ?? "rlimits",
    exact: about.tier !== "rlimits",
    launcherPid: about.launcher ?? 0,
    attack: (attack) => marked(attack, ask),
    async [Symbol.asyncDispose]() {
      stdin.end();
      await ended;
      await clone[Symbol.asyncDispose]();
    },
  };
}

export async function openHost(name: HostName): Promise<AttackedHost> {
  if (name === "an ordinary user") return openAsNobody();
  return openHere(name === "rlimits" ? "rlimits" : undefined);
}
