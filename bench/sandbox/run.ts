import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { Sandboxes } from "#sandbox";
import { findProgram } from "#sandbox/host.ts";
import { allProcesses, isRunning, treeOf } from "#sandbox/process-tree.ts";
import { openForTest, run, specFor, until } from "#sandbox/testing/harness.ts";
import { NASTY_TREE } from "#sandbox/testing/nasty.ts";
import { median, percentile, printTable } from "../support.ts";
import { benchCrowd } from "./crowd.ts";

const ROUNDS = 60;
const KILLS = 15;
const AT_ONCE = 50;
const FAT_BYTES = 1_400_000_000;

const timed = async (act: () => Promise<unknown>): Promise<number> => {
  const start = performance.now();
  await act();
  return performance.now() - start;
};

async function ended(child: ChildProcess): Promise<void> {
  const [code] = await once(child, "exit");
  if (code !== 0) throw new Error(`ended with ${code}`);
}

/** The same program three ways: bare, in the smallest sandbox there is, and in ours from slot to slot. */
function ways(sandboxes: Sandboxes): Record<string, () => Promise<void>> {
  const bwrap = findProgram("bwrap") ?? "bwrap";
  return {
    "plain spawn": () => ended(spawn("/bin/true", { stdio: "pipe" })),
    "bwrap --ro-bind / /": () => ended(spawn(bwrap, ["--ro-bind", "/", "/", "/bin/true"], { stdio: "pipe" })),
    ours: async () => {
      const { code } = await run(sandboxes, ["true"]);
      if (code !== 0) throw new Error(`ended with ${code}`);
    },
  };
}

async function spawns(sandboxes: Sandboxes): Promise<void> {
  const all = Object.entries(ways(sandboxes));
  const one = new Map<string, number[]>(all.map(([name]) => [name, []]));
  const many = new Map<string, number[]>(all.map(([name]) => [name, []]));
  for (const [, act] of all) for (let round = 0; round < 3; round += 1) await act();
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [name, act] of all) one.get(name)?.push(await timed(act));
  }
  for (let round = 0; round < 3; round += 1) {
    for (const [name, act] of all) {
      many.get(name)?.push(await timed(() => Promise.all(Array.from({ length: AT_ONCE }, act))));
    }
  }
  const plain = median(one.get("plain spawn") ?? []);
  printTable(
    all.map(([name]) => {
      const times = one.get(name) ?? [];
      return {
        name,
        "p50 ms": median(times),
        "p99 ms": percentile(times, 0.99),
        "least ms": Math.min(...times),
        "of plain": median(times) / plain,
        [`${AT_ONCE} at once ms`]: median(many.get(name) ?? []),
      };
    }),
  );
}

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

/** The longest that this process could do nothing else while it starts a program. */
async function blockOf(start: () => Promise<unknown>): Promise<number> {
  let last = performance.now();
  let longest = 0;
  let going = true;
  const tick = () => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    if (going) setImmediate(tick);
  };
  setImmediate(tick);
  // fork(2) happens before `start` first waits, so the clock must be ticking by then.
  await nextTurn();
  await start();
  await nextTurn();
  going = false;
  return longest;
}

/** Beginning to end of `spawn` in a process as large as a busy server: fork(2) copies its page tables. */
async function blocks(sandboxes: Sandboxes): Promise<void> {
  const fat = Array.from({ length: 14 }, () => Buffer.alloc(FAT_BYTES / 14, 1));
  const kinds = Object.entries(ways(sandboxes)).filter(([name]) => !name.startsWith("bwrap"));
  const idle = () => sleep(15);
  const times = new Map<string, number[]>([
    ["nothing", []],
    ...kinds.map(([name]) => [name, []] as [string, number[]]),
  ]);
  for (let round = 0; round < ROUNDS / 3; round += 1) {
    for (const [name, act] of [["nothing", idle] as const, ...kinds])
      times.get(name)?.push(await blockOf(act));
  }
  console.log(`\nlongest block of the event loop at ${Math.round(process.memoryUsage.rss() / 1e6)} MB`);
  printTable(
    [...times].map(([name, each]) => ({ name, "p50 ms": median(each), "p90 ms": percentile(each, 0.9) })),
  );
  fat.length = 0;
}

/** Processes that do not want to end: how long it takes, and how many are left. */
async function kills(sandboxes: Sandboxes): Promise<void> {
  const times: number[] = [];
  let left = 0;
  let size = 0;
  for (let round = 0; round < KILLS; round += 1) {
    const slot = await sandboxes.slots.acquire();
    const running = await sandboxes.start(specFor(slot, ["/bin/sh", "-c", NASTY_TREE]));
    await once(running.stdout, "data");
    const tree = await until(() => {
      const now = treeOf(running.pid, allProcesses());
      return now.length >= 8 && now;
    });
    times.push(await timed(() => running.kill()));
    left += tree.filter(isRunning).length;
    size = tree.length;
    await slot.release();
  }
  console.log();
  printTable([
    { name: `kill a tree of ${size}`, "p50 ms": median(times), "worst ms": Math.max(...times), left },
  ]);
}

async function warmStarts(sandboxes: Sandboxes): Promise<void> {
  const acquire: number[] = [];
  const start: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const begun = performance.now();
    const slot = await sandboxes.slots.acquire();
    const between = performance.now();
    await sandboxes.start(specFor(slot, ["sleep", "1000"]));
    start.push(performance.now() - between);
    acquire.push(between - begun);
    await slot.release();
  }
  printTable([
    { name: "acquire a slot", "p50 ms": median(acquire), "p99 ms": percentile(acquire, 0.99) },
    { name: "start in it", "p50 ms": median(start), "p99 ms": percentile(start, 0.99) },
  ]);
}

/** The run engine beside plain processes and bare bubblewrap, in one process, one after the other. */
export async function benchRun(): Promise<void> {
  await using opened = await openForTest();
  const { sandboxes } = opened;
  console.log(`run: limits by ${sandboxes.tier}`);
  await spawns(sandboxes);
  console.log();
  await warmStarts(sandboxes);
  await kills(sandboxes);
  await blocks(sandboxes);
  await benchCrowd(sandboxes);
}
