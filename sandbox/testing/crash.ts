/**
 * Run by tests, as root and as an ordinary user: servers are killed together with their launchers, so that nobody can
 * end what they ran, and another server's janitor looks round. `crash.ts DATA_DIR`, answers with JSON on stdout.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { openJanitor } from "../janitor/janitor.ts";
import { allFamilies, staleInstances } from "../limits/cgroup-files.ts";
import { allProcesses, isRunning, signal, treeOf } from "../process-tree.ts";
import { openForTest, silent, specFor } from "./harness.ts";

const DAY = 24 * 3_600_000;
const SERVER = fileURLToPath(new URL("./server.ts", import.meta.url));
const [, , dataDir = ""] = process.argv;

/** A server with two nasty sandboxes, one of them frozen; answers the whole tree below its launcher. */
async function startServer(tier: string) {
  const args = [SERVER, dataDir, "2", tier];
  const server = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = await once(server.stdout, "data");
  const { launcher } = JSON.parse(String(line));
  return { server, launcher: Number(launcher), tree: treeOf(Number(launcher), allProcesses()) };
}

await using opened = await openForTest({ dataDir });
const { sandboxes } = opened;
const slot = await sandboxes.slots.acquire();
const bystander = await sandboxes.start(specFor(slot, ["sleep", "1000"]));
const untouched = treeOf(sandboxes.launcherPid ?? 0, allProcesses());
await using janitor = openJanitor({
  sources: sandboxes.orphans,
  places: [dataDir, sandboxes.directory],
  log: silent,
  everyMs: DAY,
});

/** The best way of limiting this machine has, and the one every machine has. */
const tiers = new Set([sandboxes.tier, "rlimits"]);
const crashes = [...tiers].flatMap((tier) => (["SIGSTOP", "SIGKILL"] as const).map((how) => ({ tier, how })));
const results = [];
for (const { tier, how } of crashes) {
  const { server, launcher, tree } = await startServer(tier);
  signal(launcher, how);
  server.kill("SIGKILL");
  await once(server, "exit");
  const survivors = tree.filter(isRunning).length;
  const { removed } = await janitor.run();
  const groups = (await Promise.all((await allFamilies()).map(staleInstances))).flat();
  results.push({
    how,
    tier,
    ...{ processes: tree.length, survivors, removed },
    left: tree.filter(isRunning),
    homes: (await readdir(`${dataDir}/sandbox`)).length,
    groups: groups.filter((name) => name.split("-")[1] === String(server.pid)),
  });
}
const bystanders = untouched.filter((info) => !isRunning(info));
await bystander.kill();
await slot.release();
process.stdout.write(`${JSON.stringify({ results, bystanders })}\n`);
