/** Run by a test as an ordinary user: looks around and tries the limits, answers with JSON on stdout. */
import { allProcesses, isRunning, readProcess, treeOf } from "../process-tree.ts";
import { LIMITS, openForTest, runNode, shell, specFor, until } from "./harness.ts";
import { inspect } from "./inspect.ts";
import { NASTY_TREE } from "./nasty.ts";

const [, , dataDir = ""] = process.argv;
await using opened = await openForTest({ dataDir });
const { sandboxes } = opened;
const probe = await sandboxes.probe();
const inspection = await inspect(sandboxes, ["/etc/shadow", dataDir]);
const memory = await runNode(
  sandboxes,
  "const all = []; setInterval(() => all.push(Buffer.alloc(16 << 20, 1)), 10)",
  { limits: { ...LIMITS, memoryBytes: 200 << 20 } },
);
const forks = await shell(sandboxes, "i=0; while [ $i -lt 200 ]; do sleep 5 & i=$((i+1)); done; echo all", {
  limits: { ...LIMITS, processes: 20 },
});

const slot = await sandboxes.slots.acquire();
const nasty = await sandboxes.start(specFor(slot, ["/bin/sh", "-c", NASTY_TREE]));
await new Promise((resolve) => nasty.stdout.once("data", resolve));
const tree = await until(() => {
  const now = treeOf(nasty.pid, allProcesses());
  return now.length >= 8 && now;
});
await nasty.freeze();
const stopped = treeOf(nasty.pid, allProcesses()).filter(
  ({ pid, state }) => pid !== nasty.pid && state !== "T" && state !== "D",
);
await nasty.thaw();
await nasty.kill();
const left = tree.filter(isRunning).map(({ pid }) => readProcess(pid));
await slot.release();
process.stdout.write(
  `${JSON.stringify({ probe, inspection, memory, forks, tree: tree.length, stopped, left })}\n`,
);
