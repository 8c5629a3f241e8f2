import { randomBytes } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createLogger } from "#platform/log.ts";
import type { TaskEvent, TaskView } from "#schemas";
import { filesNaming, processesNaming, sandboxedProcesses } from "../support/leftovers.ts";
import { type ScriptedProvider, startScriptedProvider } from "../support/provider.ts";
import { startTestStudio, type TestStudio, type TestUser } from "../support/studio.ts";
import { dispatch, ended, eventsOf } from "../support/tasks.ts";

const USERS = 20;
/** Looks around as far as the sandbox lets it: environments, the file system, other processes, the network. */
const SNOOP =
  "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; ls -laR /home /workspace /tmp /run 2>/dev/null | head -400; ls /; grep -rl canary / --include='*.txt' --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr 2>/dev/null; getent hosts example.org; true";

interface Guest {
  user: TestUser;
  index: number;
  key: string;
  projectCanary: string;
  promptCanary: string;
  projectId: string;
  taskId: string;
  task?: TaskView;
  events: TaskEvent[];
}

describe("twenty users at once", () => {
  let provider: ScriptedProvider;
  let studio: TestStudio;
  const guests: Guest[] = [];
  const environments: string[] = [];
  const logged: string[] = [];

  beforeAll(async () => {
    provider = await startScriptedProvider();
    const log = createLogger(
      { level: "trace", pretty: false },
      { write: (line: string) => void logged.push(line) },
    );
    studio = await startTestStudio({ CDS_RUN_SILENCE_MS: "240000", CDS_RUN_TIMEOUT_MS: "480000" }, { log });
    const canary = (kind: string, index: number) =>
      `canary-${kind}-${index}-${randomBytes(6).toString("hex")}`;
    for (let index = 0; index < USERS; index += 1) {
      const user = await studio.user(`gast${index}@example.org`);
      const key = canary("key", index);
      await user.client.call("provider.set", {
        base_url: provider.baseUrl,
        api_key: key,
        models: ["scripted"],
      });
      guests.push({
        user,
        index,
        key,
        projectCanary: canary("project", index),
        promptCanary: canary("prompt", index),
        projectId: "",
        taskId: "",
        events: [],
      });
    }
    await Promise.all(
      guests.map(async (guest) => {
        const { projectId, taskId } = await dispatch(guest.user, {
          projectName: guest.projectCanary,
          template: "sample",
          model: "scripted",
          prompt: `${guest.promptCanary} [[file:ergebnis-${guest.index}.txt]] [[bash:${SNOOP}]]`,
        });
        guest.projectId = projectId;
        guest.taskId = taskId;
      }),
    );
    // While they run: whatever a process of this machine was given as its environment holds no key.
    const watch = setInterval(
      () => environments.push(...guests.flatMap((guest) => processesNaming(guest.key))),
      2000,
    );
    await Promise.all(
      guests.map(async (guest) => {
        guest.task = await ended(guest.user, guest.taskId, 480_000);
        guest.events = await eventsOf(studio.url, guest.user, guest.taskId);
      }),
    );
    clearInterval(watch);
  }, 600_000);

  afterAll(async () => {
    await studio?.[Symbol.asyncDispose]();
    await provider?.close();
  }, 120_000);

  it("[MU-1] gives every one of them their own result", async () => {
    expect(guests.map((guest) => guest.task?.error)).toEqual(guests.map(() => undefined));
    expect(guests.map((guest) => guest.task?.state)).toEqual(guests.map(() => "completed"));
    for (const guest of guests) {
      const change = await guest.user.client.call("change.get", { change_id: guest.task?.change_id ?? "" });
      expect(change.files.map((file) => [file.path, file.status])).toEqual([
        [`ergebnis-${guest.index}.txt`, "added"],
      ]);
      expect(change.files[0]?.after?.content).toContain(guest.promptCanary);
    }
  });

  it("[MU-4] shows nobody a byte of another's, and nobody any key", async () => {
    for (const guest of guests) {
      const seen = JSON.stringify([
        guest.events,
        guest.task,
        await guest.user.client.call("billing.entries", {}),
      ]);
      const change = JSON.stringify(
        await guest.user.client.call("change.get", { change_id: guest.task?.change_id ?? "" }),
      );
      for (const other of guests) {
        expect(seen.includes(other.key)).toBe(false);
        expect(change.includes(other.key)).toBe(false);
        if (other === guest) continue;
        for (const canary of [other.projectCanary, other.promptCanary, other.user.username]) {
          expect(seen.includes(canary)).toBe(false);
          expect(change.includes(canary)).toBe(false);
        }
      }
    }
    expect(environments).toEqual([]);
    const log = logged.join("");
    expect(log.length).toBeGreaterThan(10_000);
    for (const guest of guests) {
      expect(log.includes(guest.key)).toBe(false);
      expect(log.includes(guest.promptCanary)).toBe(false);
    }
    // Neither in the database's files nor in any log or directory of ours.
    for (const guest of guests.slice(0, 5)) expect(await filesNaming(studio.dataDir, guest.key)).toEqual([]);
  });

  it("[MU-3] gives the agents an environment without anything of the server's", () => {
    for (const guest of guests) {
      const output = guest.events
        .flatMap((event) => (event.type === "tool" ? [event.output ?? ""] : []))
        .join("\n");
      expect(output).toMatch(/^HOME=/m);
      expect(output).not.toContain(studio.dataDir);
      expect(output).not.toContain("CDS_");
      expect(output).not.toContain("DATABASE_URL");
    }
  });

  it("[US-3] charges to the token what the provider counted", async () => {
    for (const guest of guests) {
      const truth = provider.totals(guest.key);
      expect(guest.task?.usage.input_tokens).toBe(truth.prompt_tokens);
      expect(guest.task?.usage.output_tokens).toBe(truth.completion_tokens);
      const { entries } = await guest.user.client.call("billing.entries", { limit: 200 });
      const { balance_microcredits, held_microcredits } = await guest.user.client.call("billing.balance", {});
      expect(entries.reduce((sum, entry) => sum + entry.balance_delta, 0)).toBe(balance_microcredits);
      expect(entries.reduce((sum, entry) => sum + entry.held_delta, 0)).toBe(0);
      expect(held_microcredits).toBe(0);
      const spent = entries
        .filter((entry) => entry.kind === "settle")
        .reduce((sum, entry) => sum - entry.balance_delta, 0);
      expect(spent).toBe(guest.task?.usage.cost_microcredits);
    }
  });

  it("hides one user's things from another as if they were not there", async () => {
    const [first, second] = guests;
    const foreign = { task_id: first?.taskId ?? "" };
    await expect(second?.user.client.call("agent.status", foreign)).rejects.toMatchObject({
      code: "NotFound",
    });
    await expect(second?.user.client.call("agent.cancel", foreign)).rejects.toMatchObject({
      code: "NotFound",
    });
    await expect(
      second?.user.client.call("fs.list", { project_id: first?.projectId ?? "" }),
    ).rejects.toMatchObject({ code: "NotFound" });
    await expect(
      second?.user.client.call("change.accept", { change_id: first?.task?.change_id ?? "" }),
    ).rejects.toMatchObject({ code: "NotFound" });
  });

  it("[MU-6] leaves no process, directory or socket behind", async () => {
    const { dataDir } = studio;
    await studio.studio.close();
    expect(sandboxedProcesses(dataDir)).toEqual([]);
    expect(processesNaming(dataDir)).toEqual([]);
    const left = await readdir(dataDir, { recursive: true, withFileTypes: true });
    const outsideDatabase = left.filter((entry) => !entry.parentPath.startsWith(join(dataDir, "postgres")));
    expect(outsideDatabase.filter((entry) => entry.isSocket()).map((entry) => entry.name)).toEqual([]);
    for (const guest of guests) {
      const naming = await filesNaming(dataDir, guest.promptCanary);
      expect(naming.filter((path) => !path.startsWith(join(dataDir, "postgres")))).toEqual([]);
    }
    expect(
      outsideDatabase.filter((entry) => /slot|^requests$/.test(entry.name)).map((entry) => entry.name),
    ).toEqual([]);
  }, 60_000);
});
