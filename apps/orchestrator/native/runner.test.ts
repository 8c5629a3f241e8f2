import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { requestCancel } from "#database/queue/index.ts";
import { AGENT_SCRIPTS, SAMPLE, scriptedReply } from "#tests/support/agent-scripts.ts";
import { processesNaming } from "#tests/support/leftovers.ts";
import { Harness } from "../testing/harness.ts";

vi.setConfig({ testTimeout: 180_000, expect: { poll: { timeout: 30_000 } } });
let harness: Harness;
beforeAll(async () => {
  harness = await Harness.start({ CDS_RUN_SILENCE_MS: "15000", CDS_MAX_MODEL_CALLS: "5" });
});
afterAll(() => harness[Symbol.asyncDispose]());

const NATIVE = { runner: "native" };

describe("[AG-1] a native run", () => {
  it("[MU-8] turns a prompt into a proposed change and streams what happens", async () => {
    const { id } = await harness.dispatch("[[file:hello.txt]][[content:hi there]] write it", {
      ...NATIVE,
      files: { "README.md": "# Sample\n" },
    });
    const task = await harness.ended(id);
    const events = await harness.events(id);
    expect(task.error).toBeNull();
    expect(await harness.change(task)).toEqual({ "hello.txt": "hi there\n" });
    expect(events.map((event) => event.seq)).toEqual(events.map((_, index) => index + 1));
    expect(events.at(-1)).toMatchObject({ type: "done", state: "completed", change_id: task.change_id });
    const tools = events.flatMap((event) => (event.type === "tool" ? [`${event.name} ${event.status}`] : []));
    expect(tools).toEqual(expect.arrayContaining(["write running", "write completed", "bash completed"]));
    expect(events.filter(({ type }) => type === "validation")).toMatchObject([{ round: 1, passed: true }]);
    expect(harness.orchestrator.status().processes).toBe(0);
  });

  it("[MU-2] [MU-3] has its own directory and a clean environment", async () => {
    const shell =
      "env | sort > env.txt; pwd > pwd.txt; ls .. > dirs.txt; rm old.txt; chmod +x a.sh; mkdir node_modules; touch node_modules/x";
    const { id } = await harness.dispatch(`[[bash:${shell}]] look around`, {
      ...NATIVE,
      files: { "old.txt": "old\n", "a.sh": "echo a\n", "same.txt": "same\n" },
    });
    const change = await harness.change(await harness.ended(id));
    expect(Object.keys(change).sort()).toEqual([
      "a.sh",
      "dirs.txt",
      "env.txt",
      "old.txt",
      "pwd.txt",
      "result.txt",
    ]);
    expect(change["dirs.txt"]?.trim().split("\n")).toEqual(["outputs", "pdfs", "prompts", "temp", "work"]);
    const env = change["env.txt"] ?? "";
    for (const name of ["HOME", "TMPDIR", "USER", "LOGNAME"])
      expect(env).toMatch(new RegExp(`^${name}=`, "m"));
    expect(env).not.toContain(harness.dataDir);
    expect(env).not.toMatch(/^(OPENAI|DATABASE|CDS|VITEST|NODE)_/m);
  });

  it("[AG-3] [MU-6] ends the whole tree when cancelled, and leaves no directory", async () => {
    const marker = `97${process.pid}`;
    const shell = `setsid nohup sleep ${marker}1 >/dev/null 2>&1 & trap '' TERM INT; sleep ${marker}2; sleep ${marker}3`;
    const { id, userId } = await harness.dispatch(`[[bash:${shell}]] sleep`, NATIVE);
    for (let tries = 0; processesNaming(`sleep ${marker}2`).length === 0; tries += 1) {
      if (tries > 1000) throw new Error("the tool did not start");
      await sleep(50);
    }
    await requestCancel(harness.test.database.db, { user_id: userId }, id);
    expect((await harness.ended(id)).state).toBe("cancelled");
    expect(processesNaming(`sleep ${marker}`)).toEqual([]);
    await expect.poll(() => harness.slotDirectories()).toEqual([]);
  });

  it("[MU-10] tells the model's own failure, and stops at the number of calls a task may make", async () => {
    harness.provider.script({ prompt: "a wrong key", reply: { fault: "401" } });
    const broken = await harness.dispatch("a wrong key", NATIVE);
    const task = await harness.ended(broken.id);
    expect(task.state).toBe("failed");
    expect(task.error?.code).toBe("ProviderError");
    harness.provider.script({
      prompt: "for ever",
      reply: (body) => ({
        toolCalls: [{ name: "write", arguments: { filePath: `f${body.messages?.length}`, content: "x" } }],
      }),
    });
    const endless = await harness.ended((await harness.dispatch("go on for ever", NATIVE)).id);
    expect(endless.error?.hint).toContain("CDS_MAX_MODEL_CALLS");
  });

  it("[AG-2] is judged by what it did itself, and its change holds what it builds on, too", async () => {
    for (const agent of ["CodeAgent", "DocAgent"]) {
      const reply = scriptedReply(AGENT_SCRIPTS[agent]?.accepted ?? []);
      harness.provider.script({ prompt: `as ${agent}`, reply });
    }
    const first = await harness.dispatch("as CodeAgent", { ...NATIVE, files: SAMPLE });
    const { change_id } = await harness.ended(first.id);
    const { id } = await harness.dispatch("as DocAgent", {
      ...NATIVE,
      ...first,
      agent: "DocAgent",
      builds_on: [change_id ?? ""],
    });
    const task = await harness.ended(id);
    expect(task.error).toBeNull();
    expect(Object.keys(await harness.change(task)).sort()).toEqual([
      "README.md",
      "src/page.js",
      "src/stats.js",
    ]);
  });
});
