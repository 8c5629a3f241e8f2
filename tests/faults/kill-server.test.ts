import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sandboxedProcesses } from "../support/leftovers.ts";
import { type ScriptedProvider, startScriptedProvider } from "../support/provider.ts";
import { type ServerProcess, startServer, stopServer } from "../support/server-process.ts";
import { ADMIN, signIn, type TestUser } from "../support/studio.ts";
import { dispatch, ended, eventsOf } from "../support/tasks.ts";

const USERS = 4;
const ROUNDS = 2;
const ENV = { CDS_LEASE_MS: "2000", CDS_TASK_ATTEMPTS: "5" };

describe("kill -9 of the whole server", () => {
  let provider: ScriptedProvider;
  let dataDir: string;
  let server: ServerProcess;

  beforeAll(async () => {
    provider = await startScriptedProvider();
    dataDir = await mkdtemp(join(tmpdir(), "cds-kill-"));
    server = await startServer(dataDir, ENV);
  }, 120_000);

  afterAll(async () => {
    if (server !== undefined) await stopServer(server, "SIGTERM");
    await provider?.close();
    await rm(dataDir, { recursive: true, force: true });
  }, 60_000);

  async function login(name: string): Promise<TestUser> {
    return signIn(server.url, name, `password of ${name}`, "login");
  }

  it("ends every task once, charges nothing twice and leaves nothing running", async () => {
    const tasks: { name: string; taskId: string }[] = [];
    for (let index = 0; index < USERS; index += 1) {
      const name = `mitte${index}`;
      const user = await signIn(server.url, name, `password of ${name}`, "register");
      await user.client.call("provider.set", {
        base_url: provider.baseUrl,
        api_key: `key-${name}`,
        models: ["scripted"],
      });
      const { taskId } = await dispatch(user, {
        model: "scripted",
        prompt: `[[delay:60]] write for ${name}`,
      });
      tasks.push({ name, taskId });
    }
    for (let round = 1; round <= ROUNDS; round += 1) {
      await provider.waitForRequests(round * 2, 90_000);
      await stopServer(server, "SIGKILL");
      for (let wait = 0; wait < 300 && sandboxedProcesses(dataDir).length > 0; wait += 1) await sleep(100);
      expect(sandboxedProcesses(dataDir)).toEqual([]);
      server = await startServer(dataDir, ENV);
    }

    for (const { name, taskId } of tasks) {
      const user = await login(name);
      const task = await ended(user, taskId, 180_000);
      expect(task.error).toBeUndefined();
      expect(task.state).toBe("completed");
      const events = await eventsOf(server.url, user, taskId);
      expect(events.map((event) => event.seq)).toEqual(events.map((_, index) => index + 1));
      expect(events.filter((event) => event.type === "done")).toHaveLength(1);
      expect(events.at(-1)?.type).toBe("done");

      const { entries } = await user.client.call("billing.entries", { limit: 200 });
      const balance = await user.client.call("billing.balance", {});
      const settled = entries.filter((entry) => entry.kind === "settle");
      expect(new Set(settled.map((entry) => entry.call_id)).size).toBe(settled.length);
      expect(settled.reduce((sum, entry) => sum - entry.balance_delta, 0)).toBe(task.usage.cost_microcredits);
      expect(entries.reduce((sum, entry) => sum + entry.balance_delta, 0)).toBe(balance.balance_microcredits);
      expect(balance.held_microcredits).toBe(0);
      // Never more than the provider counted: what a dead server was streaming is not charged.
      expect(task.usage.output_tokens).toBeLessThanOrEqual(provider.totals(`key-${name}`).completion_tokens);
      const { changes } = await user.client.call("change.list", { project_id: task.project_id });
      expect(changes).toHaveLength(1);
    }
  }, 400_000);

  it("[MU-11] stops at SIGTERM within its grace and leaves no process", async () => {
    const admin = await signIn(server.url, ADMIN.username, ADMIN.password, "login");
    const { taskId } = await dispatch(admin, { model: "demo", prompt: "Say something", template: "sample" });
    // In the middle of it.
    const state = async () => (await admin.client.call("agent.status", { task_id: taskId })).state;
    await expect.poll(state, { timeout: 60_000 }).toBe("running");
    await stopServer(server, "SIGTERM");
    expect(server.child.exitCode).toBe(0);
    expect(sandboxedProcesses(dataDir)).toEqual([]);
    server = await startServer(dataDir, ENV);
    const again = await signIn(server.url, ADMIN.username, ADMIN.password, "login");
    expect((await ended(again, taskId, 120_000)).state).toBe("completed");
  }, 240_000);
});
