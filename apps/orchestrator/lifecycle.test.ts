import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it, vi } from "vitest";
import { processesNaming } from "#tests/support/leftovers.ts";
import { Harness } from "./testing/harness.ts";

vi.setConfig({ testTimeout: 180_000 });

async function toolStarted(needle: string): Promise<void> {
  for (let tries = 0; processesNaming(needle).length === 0; tries += 1) {
    if (tries > 2000) throw new Error("the tool did not start");
    await sleep(50);
  }
}

describe("the orchestrator's life", () => {
  it("[MU-11] puts running tasks back at shutdown, leaves nothing, and a restart finishes them", async () => {
    await using harness = await Harness.start();
    const marker = `96${process.pid}`;
    const done = await harness.dispatch("[[file:done.txt]] quick");
    await harness.ended(done.id);
    const { id } = await harness.dispatch(`[[bash:sleep ${marker}]] long`);
    await toolStarted(`sleep ${marker}`);
    expect(harness.orchestrator.status()).toEqual({ active: 1, idle: 1, spare: 0, processes: 2 });
    await harness.orchestrator.close(100);
    expect(await harness.task(id)).toMatchObject({ state: "pending", attempt: 1 });
    expect(processesNaming(`sleep ${marker}`)).toEqual([]);
    expect(harness.orchestrator.status()).toEqual({ active: 0, idle: 0, spare: 0, processes: 0 });
    expect(harness.sandboxes.run.list()).toEqual([]);
    expect(await harness.slotDirectories()).toEqual([]);
    harness.provider.script({ prompt: "long", reply: { text: "Done at last." } });
    await harness.restart();
    expect(await harness.ended(id)).toMatchObject({ state: "completed", attempt: 2 });
  });

  it("[MU-11] lets a run finish within the grace period", async () => {
    await using harness = await Harness.start();
    const { id } = await harness.dispatch("[[file:x.txt]][[delay:20]] short");
    await harness.until(id, (task) => task.state === "running");
    await harness.orchestrator.close(30_000);
    expect((await harness.task(id)).state).toBe("completed");
  });

  it("[MU-10] tries again what broke before the agent began, then fails", async () => {
    await using harness = await Harness.start({ OPENCODE_BIN: "/bin/false" });
    const { id } = await harness.dispatch("never starts", { attempts: 2 });
    const task = await harness.ended(id);
    expect(task).toMatchObject({ state: "failed", attempt: 2, error: { code: "RunFailed" } });
    expect(harness.provider.requests).toEqual([]);
    expect(harness.orchestrator.status().processes).toBe(0);
  });

  it("[MU-3] ends a run at its time-out", async () => {
    await using harness = await Harness.start({ CDS_RUN_TIMEOUT_MS: "3000" });
    const marker = `95${process.pid}`;
    const { id } = await harness.dispatch(`[[bash:sleep ${marker}]] too long`);
    expect(await harness.ended(id)).toMatchObject({ state: "failed", error: { code: "Timeout" } });
    expect(processesNaming(`sleep ${marker}`)).toEqual([]);
  });

  it("[MU-5] takes no task while memory is short, and says why", async () => {
    await using harness = await Harness.start({ CDS_MEMORY_THRESHOLD: "0.01" });
    const { id } = await harness.dispatch("waits");
    const { db } = harness.test.database;
    const blocked = () => db.selectFrom("instances").select("blocked_reason").execute();
    for (let tries = 0; (await blocked())[0]?.blocked_reason === undefined && tries < 600; tries += 1)
      await sleep(50);
    expect(await blocked()).toEqual([{ blocked_reason: "memory_threshold_exceeded" }]);
    expect((await harness.task(id)).state).toBe("pending");
  });

  it("[MU-1] runs several users at once, cold starts a few at a time, and keeps no more warm than allowed", async () => {
    await using harness = await Harness.start({ CDS_COLD_STARTS: "1", CDS_WARM_PROCESSES: "1" });
    const tasks = await Promise.all(
      ["a", "b", "c"].map((name) => harness.dispatch(`[[file:${name}.txt]] of ${name}`)),
    );
    const ended = await Promise.all(tasks.map((task) => harness.ended(task.id)));
    expect(ended.map((task) => task.state)).toEqual(["completed", "completed", "completed"]);
    expect((await Promise.all(ended.map((task) => harness.change(task)))).map(Object.keys)).toEqual([
      ["a.txt"],
      ["b.txt"],
      ["c.txt"],
    ]);
    const notes = (await Promise.all(tasks.map((task) => harness.events(task.id)))).flat();
    expect(notes.some((event) => event.type === "state" && event.note === "Waits for 1 other start.")).toBe(
      true,
    );
    for (let tries = 0; harness.orchestrator.status().processes > 1 && tries < 600; tries += 1)
      await sleep(50);
    expect(harness.orchestrator.status()).toEqual({ active: 0, idle: 1, spare: 0, processes: 1 });
    await harness.orchestrator.close(0);
    expect(harness.sandboxes.run.list()).toEqual([]);
  });
});
