/** A server to be killed: starts nasty sandboxes, tells what it has, and stays. `server.ts DATA_DIR COUNT [TIER]` */
import { openSandboxes } from "../sandboxes.ts";
import type { LimitTier } from "../types.ts";
import { silent, specFor } from "./harness.ts";
import { NASTY_TREE } from "./nasty.ts";

const [, , dataDir = "", count = "1", tier] = process.argv;
const sandboxes = await openSandboxes({
  dataDir,
  log: silent,
  ...(tier === undefined ? {} : { tier: tier as LimitTier }),
});
const started = [];
for (let index = 0; index < Number(count); index += 1) {
  const slot = await sandboxes.slots.acquire();
  const work = await slot.makeDir("work");
  const mounts = [{ source: work, target: "/work", mode: "rw" as const }];
  const run = await sandboxes.start(specFor(slot, ["/bin/sh", "-c", NASTY_TREE], { mounts }));
  await new Promise((resolve) => run.stdout.once("data", resolve));
  if (index === 0) await run.freeze();
  started.push({ pid: run.pid, dir: slot.dir });
}
process.stdout.write(`${JSON.stringify({ launcher: sandboxes.launcherPid, started })}\n`);
