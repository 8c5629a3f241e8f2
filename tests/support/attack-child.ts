/** A server that is attacked, in a process of its own: `attack-child.ts DATA_DIR [TIER]`; attacks come as lines of JSON. */
import { createInterface } from "node:readline";
import type { LimitTier } from "#sandbox";
import { openForTest } from "#sandbox/testing/harness.ts";
import { type Attack, carryOut } from "./attack.ts";

const [, , dataDir = "", tier] = process.argv;
const opened = await openForTest({ dataDir, ...(tier === undefined ? {} : { tier: tier as LimitTier }) });
const say = (line: unknown) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function answer(line: string): Promise<void> {
  const { id, attack } = JSON.parse(line) as { id: number; attack: Attack };
  try {
    say({ id, damage: await carryOut(opened.sandboxes, attack) });
  } catch (error) {
    say({ id, error: error instanceof Error ? error.message : String(error) });
  }
}

say({ tier: opened.sandboxes.tier, launcher: opened.sandboxes.launcherPid });
const running = new Set<Promise<void>>();
for await (const line of createInterface({ input: process.stdin })) {
  const one = answer(line).finally(() => running.delete(one));
  running.add(one);
}
await Promise.all(running);
await opened[Symbol.asyncDispose]();
