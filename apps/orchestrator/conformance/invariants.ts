import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { expect } from "vitest";
import { auditLedger, balanceOf } from "#database";
import { readEvents } from "#database/events/index.ts";
import { hashContent, readTree } from "#database/projects/index.ts";
import type { TaskRow } from "#database/schema.ts";
import { allFamilies, pidsIn } from "#sandbox/limits/cgroup-files.ts";
import { readProcess } from "#sandbox/process-tree.ts";
import { STATE_DIR } from "#sandbox/runtime.ts";
import { isTerminal } from "#schemas";
import { sandboxedProcesses } from "#tests/support/leftovers.ts";
import { BALANCE, type House, wait } from "./house.ts";

/** Until what has ended has given everything back. */
const REST_MS = 15_000;

/** Tasks that were found in order, which do not change any more. */
const sound = new WeakMap<House, Set<string>>();

/** What holds after everything: whatever a test did, no task of it is left in between. */
export async function checkInvariants(house: House): Promise<void> {
  const checked = sound.get(house) ?? new Set();
  sound.set(house, checked);
  const tasks = await house.db.selectFrom("tasks").selectAll().orderBy("created_at").execute();
  for (const task of tasks.filter(({ id }) => !checked.has(id))) {
    await checkTask(house, task);
    checked.add(task.id);
  }
  await checkMoney(house);
  await checkTrees(house);
  await checkMachine(house);
}

/** It ended exactly once, its log says so last, and its change is there once, or none is. */
async function checkTask({ db }: House, task: TaskRow): Promise<void> {
  expect(isTerminal(task.state), `${task.id} is ${task.state}`).toBe(true);
  const events = await readEvents(db, task.id, 0, 100_000);
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
  expect(events.at(-1)).toMatchObject({ type: "done", state: task.state });
  expect(events.filter(({ type }) => type === "done")).toHaveLength(1);
  const changes = await db.selectFrom("changes").select("id").where("task_id", "=", task.id).execute();
  const told = events.flatMap((event) => (event.type === "change" ? [event.change_id] : []));
  const expected = task.change_id === null ? [] : [task.change_id];
  expect(changes.map(({ id }) => id)).toEqual(expected);
  expect(told).toEqual(expected);
  expect(task.error === null).toBe(task.state !== "failed");
  // The reason is given once, at the end.
  const finished = events.filter(({ type }) => type === "validation" || type === "findings");
  for (const { seq } of finished) expect(seq).toBeLessThan(events.length);
}

/** Ledger = balances; nothing is held for what has ended; each call is charged once, or not at all. */
async function checkMoney({ db, grounds }: House): Promise<void> {
  await wait("no call is open", async () => {
    const open = await db.selectFrom("llm_calls").select("id").where("state", "=", "open").execute();
    return open.length === 0 ? true : undefined;
  });
  expect((await auditLedger(db)).users_off).toEqual([]);
  const charges = await db
    .selectFrom("ledger_entries")
    .select(["user_id", "call_id", "balance_delta"])
    .where("kind", "=", "settle")
    .execute();
  const calls = await db.selectFrom("llm_calls").select(["id", "state"]).execute();
  const used = await db.selectFrom("tokens_used").select("call_id").execute();
  const settled = calls.filter(({ state }) => state === "settled").map(({ id }) => id);
  expect(charges.map(({ call_id }) => call_id).sort()).toEqual(settled.sort());
  expect(used.map(({ call_id }) => call_id).sort()).toEqual(settled);
  for (const { userId } of grounds) {
    const own = charges.filter(({ user_id }) => user_id === userId);
    const spent = own.reduce((sum, { balance_delta }) => sum - balance_delta, 0);
    const balance = await balanceOf(db, userId);
    expect(balance).toEqual({ balance_microcredits: BALANCE - spent, held_microcredits: 0 });
  }
}

/** Nobody accepted anything: every project is what it was, by its newest revision and by its present files. */
async function checkTrees({ db, grounds }: House): Promise<void> {
  for (const { projectId, files } of grounds) {
    const expected = Object.entries(files)
      .map(([path, text]) => `${path} ${hashContent(Buffer.from(text)).toString("hex")}`)
      .sort();
    const { head_revision } = await db
      .selectFrom("projects")
      .select("head_revision")
      .where("id", "=", projectId)
      .executeTakeFirstOrThrow();
    for (const revision of [undefined, head_revision]) {
      const tree = await readTree(db, projectId, revision);
      expect(tree.map(({ path, blob_hash }) => `${path} ${blob_hash.toString("hex")}`).sort()).toEqual(
        expected,
      );
    }
  }
}

/** What stays is opencode's warm processes, each in its one slot; a program of a task is in none of them. */
async function checkMachine(house: House): Promise<void> {
  const { orchestrator, sandboxes } = house;
  const state = () => {
    const { active, idle, processes } = orchestrator.status();
    const open = sandboxes.run.list().length;
    return { active, resting: idle, slots: sandboxes.slots.inUse, programs: open, processes };
  };
  await expect.poll(state, { timeout: REST_MS }).toSatisfy((now: ReturnType<typeof state>) => {
    const { active, resting, slots, programs, processes } = now;
    return active === 0 && programs === processes && resting === processes && slots === processes;
  });
  const { processes } = state();
  expect(await slotDirectories(house)).toHaveLength(processes);
  await expect.poll(programs, { timeout: REST_MS }).toEqual(Array(processes).fill(WARM).flat().sort());
  for (const home of await groupHomes())
    await expect.poll(() => occupied(home), { timeout: REST_MS }).toBe(processes);
}

/** What a warm process consists of: the sandbox, opencode in it, and its way to the model server. */
const WARM = ["bwrap", "opencode", "socat"];

/** Everything that is named after this server, as long as it runs. */
const marks = () => `-${process.pid}-${readProcess(process.pid)?.started ?? "gone"}-`;

/** Programs in sandboxes of this server. */
function programs(): string[] {
  return sandboxedProcesses(marks())
    .map((line) => basename(line.split(" ")[1] ?? ""))
    .sort();
}

/** Where this server makes a control group for each program, by kind of limit; none where it limits in other ways. */
async function groupHomes(): Promise<string[]> {
  const homes = await Promise.all((await allFamilies()).map(entries));
  return homes.flat().filter((path) => path.includes(marks()));
}

/** Groups with a process in them; empty ones are kept in stock. */
async function occupied(home: string): Promise<number> {
  const groups = (await readdir(home).catch(() => [])).filter((name) => /^\d+$/.test(name));
  const pids = groups.map((name) => pidsIn(join(home, name)).catch(() => []));
  return (await Promise.all(pids)).filter((found) => found.length > 0).length;
}

const entries = async (directory: string) =>
  (await readdir(directory).catch(() => [])).map((name) => join(directory, name));

async function slotDirectories({ sandboxes, llm }: House): Promise<string[]> {
  const probe = await sandboxes.slots.acquire();
  const names = await readdir(dirname(probe.dir));
  await probe.release();
  const { tempDirPrefix } = llm.config.run;
  return names.filter((name) => name.startsWith(tempDirPrefix) && name !== basename(probe.dir));
}

/** After the end: no directory, socket, control group or process of this server is left. */
export async function leftOver(dataDir: string): Promise<string[]> {
  const bases = [tmpdir(), join(dataDir, "sandbox"), ...(await entries(STATE_DIR)), ...(await allFamilies())];
  const named = (await Promise.all(bases.map(entries))).flat().filter((path) => path.includes(marks()));
  return [...named, ...programs()];
}
