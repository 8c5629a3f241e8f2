import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { MethodInput } from "#schemas";
import { type ScriptedProvider, startScriptedProvider } from "../support/provider.ts";
import { startTestStudio, type TestStudio, type TestUser } from "../support/studio.ts";
import { ended, eventsOf } from "../support/tasks.ts";

let studio: TestStudio;
let provider: ScriptedProvider;
let ada: TestUser;
beforeAll(async () => {
  provider = await startScriptedProvider();
  studio = await startTestStudio({ CDS_PROVIDER_ALLOW_PRIVATE_HOSTS: "true" });
  ada = await studio.user("ada");
  const settings = { base_url: provider.baseUrl, api_key: "sk-ada", models: ["scripted"] };
  await ada.client.call("provider.set", settings);
}, 120_000);
afterAll(async () => {
  await studio?.[Symbol.asyncDispose]();
  await provider?.close();
}, 60_000);

async function project(files: Record<string, string>): Promise<string> {
  const { id } = await ada.client.call("project.create", { name: "Agents" });
  for (const [path, content] of Object.entries(files)) {
    await ada.client.call("project.file.save", { project_id: id, path, content });
  }
  return id;
}

async function run(project_id: string, prompt: string, more: Partial<MethodInput<"agent.dispatch">> = {}) {
  const { task_id } = await ada.client.call("agent.dispatch", {
    ...{ agent: "CodeAgent", project_id, prompt, model: "scripted" },
    ...more,
  });
  return await ended(ada, task_id, 60_000);
}

const changeOf = ({ change_id }: { change_id?: string | undefined }) => {
  if (change_id === undefined) throw new Error("the task made no change");
  return change_id;
};
const read = async (project_id: string, path: string) =>
  (await ada.client.call("fs.read", { project_id, path })).content;

describe("[TE-2] agents over the whole studio, by the native runner", () => {
  it("[AG-1] a session goes on and knows what was before; what it costs is what the provider counted", async () => {
    const id = await project({ "a.txt": "a\n" });
    const first = await run(id, "[[file:b.txt]][[content:bee]] Write it.");
    expect(first).toMatchObject({ state: "completed", runner: "native" });
    await ada.client.call("change.accept", { change_id: changeOf(first) });
    const second = await run(id, "[[file:c.txt]][[content:sea]] Now also this one.", {
      continues: first.task_id,
      context: { path: "a.txt", selection: { start_line: 1, end_line: 1, text: "a" } },
    });
    expect(second).toMatchObject({ state: "completed", continues: first.task_id });
    const asked = provider.requests.findLast(({ raw }) => raw.includes("Now also this one"))?.raw ?? "";
    for (const told of ["Write it.", "wrote b.txt", "a.txt", "Line 1 is selected"])
      expect(asked).toContain(told);
    const used = provider.totals("sk-ada");
    const { input_tokens, output_tokens } = first.usage;
    expect(input_tokens + second.usage.input_tokens).toBe(used.prompt_tokens);
    expect(output_tokens + second.usage.output_tokens).toBe(used.completion_tokens);
  });

  it("[AG-2] two results that collide: both sides are shown, an agent resolves it, and all can be undone", async () => {
    const id = await project({ "price.txt": "1\n" });
    const mine = await run(id, "[[file:price.txt]][[content:mine]] One.");
    const theirs = await run(id, "[[file:price.txt]][[content:theirs]] Two.");
    await ada.client.call("change.accept", { change_id: changeOf(mine) });
    const collides = changeOf(theirs);
    await expect(ada.client.call("change.accept", { change_id: collides })).rejects.toMatchObject({
      code: "Conflict",
      details: { conflicts: [{ path: "price.txt", kind: "content" }] },
    });
    const { task_id } = await ada.client.call("change.resolve", {
      change_id: collides,
      model: "scripted",
      prompt: "[[file:price.txt]][[content:mine and theirs]] Keep both.",
    });
    const resolved = await ended(ada, task_id, 60_000);
    expect(resolved).toMatchObject({ state: "completed", resolves: collides });
    const asked = provider.requests.findLast(({ raw }) => raw.includes("Keep both"))?.raw ?? "";
    expect(asked).toContain("both sides stand between conflict markers");
    const { revision } = await ada.client.call("change.accept", { change_id: changeOf(resolved) });
    expect(await read(id, "price.txt")).toBe("mine and theirs\n");
    expect((await ada.client.call("change.get", { change_id: collides })).state).toBe("rejected");
    // Undone after something else came.
    await ada.client.call("project.file.save", { project_id: id, path: "other.txt", content: "x\n" });
    await ada.client.call("change.revert", { change_id: changeOf(resolved) });
    expect(await read(id, "price.txt")).toBe("mine\n");
    expect(await read(id, "other.txt")).toBe("x\n");
    expect(revision).toBeGreaterThan(1);
  });

  it("[AG-2] a plan: later steps build on earlier ones, and the last change holds all of them", async () => {
    const id = await project({ "start.txt": "s\n" });
    const step = (name: string, after?: string[]) => ({
      id: name,
      agent: "CodeAgent",
      prompt: `[[file:${name}.txt]][[content:${name}]] Step ${name}.`,
      ...(after === undefined ? {} : { after }),
    });
    const steps = [step("one"), step("two"), step("three", ["one", "two"])];
    const plan = await ada.client.call("agent.dispatch", {
      plan: { steps },
      project_id: id,
      model: "scripted",
    });
    const last = plan.steps?.find((each) => each.id === "three")?.task_id ?? "";
    const done = await ended(ada, last, 120_000);
    expect(done).toMatchObject({ state: "completed", step: "three" });
    const change = await ada.client.call("change.get", { change_id: changeOf(done) });
    expect(change.files.map(({ path }) => path)).toEqual(["one.txt", "three.txt", "two.txt"]);
    await ada.client.call("change.accept", { change_id: changeOf(done) });
    expect(await read(id, "two.txt")).toBe("two\n");
    const { changes } = await ada.client.call("change.list", { project_id: id });
    expect(new Set(changes.map(({ state }) => state))).toEqual(new Set(["accepted"]));
    const seen = await ada.client.call("agent.plan", { plan_id: plan.plan_id ?? "" });
    expect(seen.state).toBe("completed");
  });

  it("[AG-2] is paused before its next question to the model, and goes on when it is told to", async () => {
    const id = await project({ "start.txt": "s\n" });
    let first: (() => void) | undefined;
    const asked = new Promise<void>((resolve) => {
      first = resolve;
    });
    provider.script({
      prompt: "slowly",
      reply: (body) => {
        first?.();
        const done = body.messages?.at(-1)?.role === "tool";
        return done
          ? { text: "Done." }
          : {
              toolCalls: [
                { name: "bash", arguments: { command: "sleep 1; echo hi > hi.txt", description: "x" } },
              ],
            };
      },
    });
    const { task_id } = await ada.client.call("agent.dispatch", {
      ...{ agent: "CodeAgent", project_id: id, prompt: "slowly", model: "scripted" },
    });
    await asked;
    expect(await ada.client.call("agent.pause", { task_id })).toMatchObject({ paused: true });
    const count = provider.requests.length;
    // Its tool ends meanwhile, and nothing else is asked.
    await expect.poll(async () => (await ada.client.call("agent.status", { task_id })).paused).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 2500));
    expect(provider.requests.length).toBe(count);
    expect((await ada.client.call("agent.status", { task_id })).state).toBe("running");
    await ada.client.call("agent.resume", { task_id });
    const task = await ended(ada, task_id, 60_000);
    expect(task.state).toBe("completed");
    const notes = (await eventsOf(studio.url, ada, task_id)).flatMap((event) =>
      event.type === "state" && event.note !== undefined ? [event.note] : [],
    );
    expect(notes).toEqual([expect.stringContaining("Paused"), "Goes on."]);
  });

  it("[AG-1] what only one runner can give is refused for the other, at dispatch", async () => {
    const id = await project({ "a.txt": "a\n" });
    const wanted = { agent: "CodeAgent", project_id: id, prompt: "x", model: "scripted" } as const;
    const dispatch = (more: object) => ada.client.call("agent.dispatch", { ...wanted, ...more });
    await expect(dispatch({ runner: "native", agent_config: true })).rejects.toMatchObject({
      code: "InvalidParams",
      details: { hint: expect.stringContaining("opencode") },
    });
    await expect(dispatch({ network: true })).rejects.toMatchObject({ code: "Forbidden" });
    const { agents } = await ada.client.call("agent.list", {});
    expect(agents.map(({ name }) => name)).toEqual([
      "CodeAgent",
      "TestAgent",
      "DesignAgent",
      "DebugAgent",
      "SecurityAgent",
      "DocAgent",
    ]);
    for (const { runners } of agents) expect(runners).toEqual(["native", "opencode"]);
  });
});
