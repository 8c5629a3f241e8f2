/** A server to be killed at any moment: starts and ends sandboxes without pause. `churn.ts DATA_DIR TOKEN [TIER]` */
import { openSandboxes } from "../sandboxes.ts";
import type { LimitTier } from "../types.ts";
import { silent, specFor } from "./harness.ts";

const [, , dataDir = "", token = "", tier] = process.argv;
const sandboxes = await openSandboxes({
  dataDir,
  log: silent,
  ...(tier === undefined ? {} : { tier: tier as LimitTier }),
});

async function churn(kill: boolean): Promise<never> {
  for (;;) {
    const slot = await sandboxes.slots.acquire();
    const script = "setsid sleep 1000 & sleep 1000";
    const running = await sandboxes.start(specFor(slot, ["/bin/sh", "-c", script, token]));
    if (!kill) await running.stats();
    await slot.release();
  }
}

process.stdout.write("ready\n");
await Promise.all([churn(true), churn(true), churn(false)]);
