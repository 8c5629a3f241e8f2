import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { makeTemporary, openForTest, shell, specFor, until } from "../../testing/harness.ts";

const ROUNDS = 6;

/** Pids of all processes of this machine that carry `token` in their command. */
function bearing(token: string): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => {
      try {
        return pid !== process.pid && readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(token);
      } catch {
        return false;
      }
    });
}

it.each(["best", "rlimits"])(
  "[MU-6] a server killed while it starts and ends sandboxes leaves none (%s)",
  async (tier) => {
    const dataDir = await makeTemporary();
    const script = fileURLToPath(new URL("../../testing/churn.ts", import.meta.url));
    for (let round = 0; round < ROUNDS; round += 1) {
      const token = `churn-${randomBytes(8).toString("hex")}`;
      const args = [script, dataDir, token, ...(tier === "best" ? [] : [tier])];
      const server = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
      await once(server.stdout, "data");
      await sleep(150 + round * 37);
      server.kill("SIGKILL");
      await once(server, "exit");
      await until(() => bearing(token).length === 0);
      await sleep(50);
      expect(bearing(token)).toEqual([]);
    }
    const last = await openForTest({ dataDir });
    expect(await readdir(`${dataDir}/sandbox`)).toHaveLength(1);
    expect((await shell(last.sandboxes, "echo fine")).stdout).toBe("fine\n");
    await last[Symbol.asyncDispose]();
    await rm(dataDir, { recursive: true });
  },
);

it("[MU-6] a launcher killed while it starts sandboxes leaves none, and every start is answered", async () => {
  await using opened = await openForTest({ tier: "rlimits" });
  const { sandboxes } = opened;
  for (let round = 0; round < ROUNDS; round += 1) {
    const token = `churn-${randomBytes(8).toString("hex")}`;
    const slots = await Promise.all(Array.from({ length: 6 }, () => sandboxes.slots.acquire()));
    const starts = slots.map((slot) =>
      sandboxes.start(specFor(slot, ["/bin/sh", "-c", "sleep 1000", token])),
    );
    await sleep(round * 8);
    process.kill(sandboxes.launcherPid ?? 0, "SIGKILL");
    for (const start of await Promise.allSettled(starts)) {
      if (start.status === "fulfilled") expect(await start.value.exited).toMatchObject({ signal: "SIGKILL" });
      else expect(start.reason).toMatchObject({ code: "EngineUnavailable" });
    }
    await until(() => bearing(token).length === 0);
    await Promise.all(slots.map((slot) => slot.release()));
  }
  expect((await shell(sandboxes, "echo fine")).stdout).toBe("fine\n");
});
