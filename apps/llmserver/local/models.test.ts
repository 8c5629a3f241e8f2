import { stat } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { findLocalModel, setModelState } from "#database/models/index.ts";
import { chat, whole } from "#tests/support/engines.ts";
import { SCRIPTED } from "#tests/support/gguf/index.ts";
import { type MachineModels, startMachineModels } from "#tests/support/machine-models.ts";
import { ApiError } from "../api-error.ts";
import type { ModelUse } from "./manage/instance.ts";
import type { LoadedModel } from "./types.ts";

const MODEL = "tiny-scripted";
const NEVER = new AbortController().signal;

/** Reads an endless answer's first piece; the rest on demand. */
async function endless(model: LoadedModel) {
  const batches = model.generate(chat("count forever", { max_tokens: 900 }), NEVER)[Symbol.asyncIterator]();
  await batches.next();
  return {
    async rest() {
      let seen = 1;
      while ((await batches.next()).done !== true) seen += 1;
      return seen;
    },
  };
}

async function refusal(promise: Promise<unknown>): Promise<ApiError> {
  const error = await promise.then(
    () => new Error("it was not refused"),
    (reason: unknown) => reason,
  );
  if (error instanceof ApiError) return error;
  throw error;
}

describe("[LLM-3] models of this machine", () => {
  let machine: MachineModels;
  beforeAll(async () => {
    machine = await startMachineModels([MODEL, "tiny-bert"]);
  });
  beforeEach(async () => {
    await setModelState(machine.db, MODEL, { enabled: true, load_config: {} });
    await machine.restart();
  });
  afterAll(() => machine?.[Symbol.asyncDispose]());

  const open = (signal = NEVER) => machine.models.open(MODEL, signal);
  const row = async (name = MODEL) => await findLocalModel(machine.db, name);
  const view = async () => (await machine.models.listModels()).find(({ name }) => name === MODEL);
  const started = () => machine.logged.filter((line) => line.includes('"msg":"model loaded"')).length;

  it("are loaded by the first request, once for all that come together, and answer", async () => {
    const before = started();
    const uses = await Promise.all([open(), open(), open()]);
    expect(new Set(uses.map(({ model }) => model.pid)).size).toBe(1);
    expect(started()).toBe(before + 1);
    const { model } = uses[0] as ModelUse;
    expect((await whole(model, chat("Hallo"))).choices[0]?.text).toBe(SCRIPTED.plain);
    expect(await row()).toMatchObject({ is_loaded: true, kind: "chat", context_size: 1024 });
    expect(await view()).toMatchObject({ is_loaded: true, state: "loaded", enabled: true });
    const { memory, models } = await machine.models.status();
    expect(memory.available_bytes).toBeGreaterThan(0);
    expect(models).toMatchObject([
      { model_id: MODEL, pid: model.pid, threads: 1, context_size: 1024, sequences: 2, sessions: 0 },
    ]);
    expect((await machine.models.memory()).get(MODEL)).toBeGreaterThan(10e6);
    for (const use of uses) use[Symbol.dispose]();
  });

  it("that make vectors are known as such", async () => {
    using use = await machine.models.open("tiny-bert", NEVER);
    expect(use.model.info.kind).toBe("embedding");
    expect(await row("tiny-bert")).toMatchObject({ kind: "embedding" });
  });

  it("are not found when they are not installed", async () => {
    expect(await refusal(machine.models.open("nobody", NEVER))).toMatchObject({
      status: 404,
      options: { code: "model_not_found" },
    });
  });

  it("go on loading for those who stay when one leaves", async () => {
    const leaver = new AbortController();
    const left = open(leaver.signal);
    const stayed = open();
    await expect.poll(async () => (await view())?.state).toBe("loading");
    leaver.abort(new Error("left"));
    await expect(left).rejects.toThrow("left");
    using use = await stayed;
    expect(use.model.info.kind).toBe("chat");
  });

  it("stop loading when all have left, and load for whoever comes then", async () => {
    const before = started();
    const leaver = new AbortController();
    const both = [open(leaver.signal), open(leaver.signal)];
    await expect.poll(async () => (await view())?.state).toBe("loading");
    leaver.abort(new Error("left"));
    for (const one of both) await expect(one).rejects.toThrow("left");
    using _ = await open();
    expect(started()).toBe(before + 1);
  });

  it("finish what is in work before they are unloaded, and stay unloaded until they are loaded again", async () => {
    using use = await open();
    const answer = await endless(use.model);
    const unloading = machine.models.unloadModel(MODEL);
    await expect.poll(async () => (await view())?.state).toBe("unloading");
    const refused = await refusal(open());
    expect(refused).toMatchObject({ status: 503, options: { code: "model_unloaded", shouldRetry: false } });
    expect(refused.message).toContain("POST /admin/load");
    expect(await answer.rest()).toBeGreaterThan(10);
    use[Symbol.dispose]();
    expect(await unloading).toMatchObject({ enabled: false, is_loaded: false, state: "unloaded" });
    expect(await row()).toMatchObject({ enabled: false, is_loaded: false });
    await machine.restart();
    expect(await refusal(open())).toMatchObject({ options: { code: "model_unloaded" } });
    expect(await machine.models.loadModel(MODEL)).toMatchObject({ enabled: true, is_loaded: true });
    using _ = await open();
  });

  it("end what is in work when it does not finish in time", async () => {
    await machine.restart({}, { unloadGraceMs: 20 });
    using use = await open();
    const answer = await endless(use.model);
    const rest = expect(answer.rest()).rejects.toMatchObject({ options: { code: "model_unloaded" } });
    await machine.models.unloadModel(MODEL);
    await rest;
  });

  it("are loaded anew with another configuration: what is in work finishes, what comes waits", async () => {
    const old = await open();
    const answer = await endless(old.model);
    const loading = machine.models.loadModel(MODEL, { context_size: 512, temperature: 0.1 });
    await expect.poll(async () => (await view())?.state).toBe("unloading");
    const waiting = open();
    await answer.rest();
    old[Symbol.dispose]();
    using use = await waiting;
    expect(use.model.info.context_size).toBe(512);
    expect(await loading).toMatchObject({ config: { context_size: 512, temperature: 0.1 } });
    const before = started();
    await machine.models.loadModel(MODEL, { temperature: 0.1, context_size: 512 });
    expect(started()).toBe(before);
    await machine.restart();
    using later = await open();
    expect(later.model.info.context_size).toBe(512);
  });

  it("take an administrator's configuration over a load that has begun otherwise", async () => {
    const waiting = open();
    await expect.poll(async () => (await view())?.state).toBe("loading");
    await machine.models.loadModel(MODEL, { context_size: 256 });
    using use = await waiting;
    expect(use.model.info.context_size).toBe(256);
  });

  it("are not loaded once they were unloaded while loading", async () => {
    const waiting = refusal(open());
    await expect.poll(async () => (await view())?.state).toBe("loading");
    await machine.models.unloadModel(MODEL);
    expect(await waiting).toMatchObject({ options: { code: "model_unloaded" } });
    expect((await view())?.state).toBe("unloaded");
  });

  it("follow the last word of several administrators", async () => {
    const load = (context_size: number) => machine.models.loadModel(MODEL, { context_size });
    // What comes after a load may end it; the last one is ended by nobody.
    const [, ...words] = await Promise.allSettled([load(256), machine.models.unloadModel(MODEL), load(512)]);
    expect(words.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled"]);
    expect(await view()).toMatchObject({ enabled: true, is_loaded: true, config: { context_size: 512 } });
    await Promise.allSettled([load(256), machine.models.unloadModel(MODEL)]);
    expect(await view()).toMatchObject({ enabled: false, is_loaded: false });
  });

  it("are unloaded when nobody has used them for a while, never while somebody does", async () => {
    await machine.restart({ CDS_LLM_IDLE_UNLOAD_MS: "30" });
    const use = await open();
    await endless(use.model).then((answer) => answer.rest());
    expect((await view())?.state).toBe("loaded");
    use[Symbol.dispose]();
    await expect.poll(async () => (await row())?.is_loaded).toBe(false);
    expect(await view()).toMatchObject({ state: "unloaded", enabled: true });
    using _ = await open();
  });

  it("come back after a crash, rest after several, and an administrator wakes them", async () => {
    for (let crash = 1; crash <= 3; crash += 1) {
      using use = await open();
      process.kill(use.model.pid, "SIGKILL");
      await use.model.closed;
      await expect.poll(async () => (await row())?.is_loaded).toBe(false);
    }
    const refused = await refusal(open());
    expect(refused).toMatchObject({ status: 503, options: { code: "engine_crashed" } });
    expect(refused.options.retryAfterSeconds).toBeGreaterThan(0);
    expect(refused.message).toContain("3 times");
    await machine.models.loadModel(MODEL);
    using _ = await open();
  });

  it("only load by an administrator's hand where requests must not", async () => {
    await machine.restart({ CDS_LLM_AUTOLOAD: "false" });
    expect(await refusal(open())).toMatchObject({ status: 503, options: { code: "model_unloaded" } });
    await machine.models.loadModel(MODEL);
    using _ = await open();
  });

  it("that do not load in time are told so", async () => {
    await machine.restart({ CDS_LLM_LOAD_TIMEOUT_MS: "100" });
    expect(await refusal(open())).toMatchObject({
      status: 504,
      options: { code: "model_load_timeout", shouldRetry: false },
    });
  });

  it("leave with their file when they are removed", async () => {
    await machine.put(MODEL, "gone.gguf");
    await machine.models.listModels();
    using use = await machine.models.open("gone", NEVER);
    const removing = machine.models.removeModel("gone");
    await nextTurn();
    use[Symbol.dispose]();
    await removing;
    await expect(stat(join(machine.directory, "gone.gguf"))).rejects.toMatchObject({ code: "ENOENT" });
    expect(await row("gone")).toBeUndefined();
    expect(await refusal(machine.models.open("gone", NEVER))).toMatchObject({ status: 404 });
    await machine.put(MODEL, "gone.gguf");
    await machine.models.listModels();
    using _ = await machine.models.open("gone", NEVER);
  });

  it("all end when the server does", async () => {
    const use = await open();
    await machine.models.close();
    expect(await use.model.closed).toMatchObject({ wanted: true });
    expect(await row()).toMatchObject({ is_loaded: false });
    expect(await refusal(open())).toMatchObject({ status: 503 });
  });
});
