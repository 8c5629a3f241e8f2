import { afterEach, describe, expect, it } from "vitest";
import { Harness } from "./testing/harness.ts";

describe("spare processes", () => {
  let harness: Harness | undefined;
  afterEach(async () => {
    await harness?.[Symbol.asyncDispose]();
    harness = undefined;
  }, 60_000);

  const spares = (count: number) =>
    expect.poll(() => harness?.orchestrator.status().spare, { timeout: 90_000, interval: 100 }).toBe(count);

  it("serves a newcomer from the spare, starts the next one, and never shares one", async () => {
    harness = await Harness.start({ CDS_SPARE_PROCESSES: "1" });
    await spares(1);
    const first = await harness.dispatch("[[file:one.txt]] [[content:first canary]] newcomer");
    await harness.ended(first.id);
    await spares(1);
    const second = await harness.dispatch(
      "[[bash:grep -rl 'first can[a]ry' /workspace /home /tmp; true]] other",
    );
    const task = await harness.ended(second.id);
    expect(task.state).toBe("completed");
    const output = (await harness.events(second.id)).map((event) =>
      event.type === "tool" ? event.output : "",
    );
    // The command itself is written so that it does not find itself.
    expect(output.join("\n")).not.toMatch(/^\/(workspace|home|tmp)/m);
    await spares(1);
    await expect
      .poll(() => harness?.orchestrator.status(), { timeout: 30_000 })
      .toMatchObject({ idle: 2, processes: 3 });
  }, 240_000);

  it("fails a task with the reason when opencode is missing, and the rest lives on", async () => {
    harness = await Harness.start({
      CDS_SPARE_PROCESSES: "1",
      OPENCODE_BIN: "/nowhere/opencode",
      LOG_LEVEL: "silent",
    });
    const { id } = await harness.dispatch("hello", { attempts: 1 });
    const task = await harness.ended(id);
    expect(task.state).toBe("failed");
    expect(task.error).toMatchObject({ code: "EngineUnavailable" });
    expect(harness.orchestrator.status()).toMatchObject({ active: 0, processes: 0 });
  }, 120_000);
});
