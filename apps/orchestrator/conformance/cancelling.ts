import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import type { Runner } from "#agents";
import { pauseTask, requestCancel, resumeTask } from "#database/queue/index.ts";
import type { TaskRow } from "#database/schema.ts";
import type { Slot } from "#sandbox";
import { SAMPLE } from "#tests/support/agent-scripts.ts";
import { processesNaming } from "#tests/support/leftovers.ts";
import type { Reply } from "#tests/support/provider-replies.ts";
import type { RunnerFeature, RunnerScenario } from "./features.ts";
import { type House, wait } from "./house.ts";

/** Ending and holding tasks at every stage. */

/** Sleeps of these lengths are nobody else's. */
const SECONDS = `9${process.pid}`;
/** What a task would have changed. */
const WRITE: Reply = {
  text: "I write. ",
  toolCalls: [{ name: "write", arguments: { filePath: "left.txt", content: "left\n" } }],
};
const bash = (command: string): Reply => ({
  text: "I run it. ",
  toolCalls: [{ name: "bash", arguments: { command, description: "Runs it" } }],
});
const LONG: Reply = { text: "A word after the other. ".repeat(400), delayMs: 50 };
const SILENT: Reply = { fault: "hang-stream", text: "Half of this, and then nothing more." };

async function cancelled(house: House, task: TaskRow): Promise<void> {
  await requestCancel(house.db, { user_id: task.user_id }, task.id);
  const { task: ended, change, events } = await house.ended(task);
  expect(ended).toMatchObject({ state: "cancelled", error: null, change_id: null });
  expect(change).toEqual({});
  expect(events.filter(({ type }) => type === "error")).toEqual([]);
}

/** Somebody else has all the places: who starts has to wait for one. */
async function takeAll(house: House): Promise<Slot[]> {
  const { slots } = house.sandboxes;
  const free = Array.from({ length: slots.size - slots.inUse }, () => slots.acquire());
  return Promise.all(free);
}

export const cancelling: {
  readonly [F in RunnerFeature &
    ("queue" | "starting" | "asking" | "working" | "validating" | "pause")]: RunnerScenario;
} = {
  queue: async (house, runner) => {
    const first = await house.dispatch(runner, { script: [[LONG]] });
    await house.asked(first);
    const waiting = await house.dispatch(runner, { script: [[WRITE, { text: "Done." }]] });
    await cancelled(house, waiting);
    expect(house.requests(waiting)).toEqual([]);
    await cancelled(house, first);
  },

  starting: async (house, runner) => {
    const ground = await house.ground();
    await using places = new AsyncDisposableStack();
    for (const slot of await takeAll(house)) places.defer(() => slot.release());
    const task = await house.dispatch(runner, { ground, script: [[WRITE, { text: "Done." }]] });
    await house.until(task.id, ({ state }) => state === "running");
    await cancelled(house, task);
    expect(house.requests(task)).toEqual([]);
  },

  asking: async (house, runner) => {
    const writes = await house.dispatch(runner, { script: [[WRITE, LONG]] });
    await house.event(writes.id, (event) => event.type === "text" && event.delta.includes("word"));
    await cancelled(house, writes);
    const silent = await house.dispatch(runner, { script: [[WRITE, SILENT]] });
    await wait("the model is silent", async () => house.requests(silent).at(1)?.firstByteAt);
    await cancelled(house, silent);
    const [answering] = house.requests(writes).slice(-1);
    expect(answering).toMatchObject({ aborted: true, completed: false });
  },

  working: async (house, runner) => {
    // Leaves its session, ignores signals, and would start the next one.
    const command = `setsid nohup sleep ${SECONDS}1 >/dev/null 2>&1 & trap '' TERM INT; touch left.txt; sleep ${SECONDS}2; sleep ${SECONDS}3`;
    const task = await house.dispatch(runner, { script: [[bash(command), { text: "Done." }]] });
    await wait("the tool is at work", async () => processesNaming(`sleep ${SECONDS}2`)[0]);
    await cancelled(house, task);
    expect(processesNaming(`sleep ${SECONDS}`)).toEqual([]);
    expect(house.requests(task)).toHaveLength(1);
  },

  validating: async (house, runner) => {
    const test = `sleep ${SECONDS}4`;
    const files = { ...SAMPLE, "package.json": JSON.stringify({ name: "slow", scripts: { test } }) };
    const ground = await house.ground(files);
    const task = await house.dispatch(runner, { ground, script: [[WRITE, { text: "Done." }]] });
    await wait("the project's test runs", async () => processesNaming(test)[0]);
    await cancelled(house, task);
    expect(processesNaming(test)).toEqual([]);
  },

  pause: async (house, runner) => {
    const release = "while [ ! -e go ]; do sleep 0.05; done";
    const script = [[bash(`(sleep 1; touch go) & ${release}; rm go; echo hi > hi.txt`), { text: "Done." }]];
    const task = await house.dispatch(runner, { script });
    const { user_id } = task;
    await house.event(task.id, (event) => event.type === "tool" && event.status === "running");
    await pauseTask(house.db, user_id, task.id);
    await house.event(task.id, (event) => event.type === "tool" && event.status === "completed");
    await sleep(500);
    expect(house.requests(task)).toHaveLength(1);
    expect(await house.until(task.id, () => true)).toMatchObject({ state: "running" });
    await resumeTask(house.db, user_id, task.id);
    const { task: ended, events, requests, change } = await house.ended(task);
    expect(ended).toMatchObject({ state: "completed", error: null, attempt: 1 });
    expect(requests).toHaveLength(2);
    expect(change).toEqual({ "hi.txt": "hi\n" });
    const notes = events.flatMap((event) => (event.type === "state" ? (event.note ?? []) : []));
    expect(notes).toEqual([expect.stringContaining("Paused"), "Goes on."]);
    await pausedAndCancelled(house, runner);
  },
};

/** A task that rests can be cancelled as well. */
async function pausedAndCancelled(house: House, runner: Runner): Promise<void> {
  const task = await house.dispatch(runner, { script: [[bash("sleep 0.5"), LONG]] });
  await house.event(task.id, (event) => event.type === "tool" && event.status === "running");
  await pauseTask(house.db, task.user_id, task.id);
  await house.event(task.id, (event) => event.type === "tool" && event.status === "completed");
  await cancelled(house, task);
}
