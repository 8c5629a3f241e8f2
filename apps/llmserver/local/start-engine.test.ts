import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { chat, emptyWhole, startTestEngine, whole } from "#tests/support/engines.ts";
import { brokenModels, cachedModel } from "#tests/support/gguf/index.ts";
import { processesNaming } from "#tests/support/leftovers.ts";

const CHILD = fileURLToPath(new URL("../../../tests/support/engine-child.ts", import.meta.url));
const signal = new AbortController().signal;
const dir = await mkdtemp(join(tmpdir(), "cds-engine-"));
const broken = await brokenModels(dir);
afterAll(() => rm(dir, { recursive: true, force: true }));

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Processes of models that this one started. */
function engines(): string[] {
  return processesNaming("llmserver/local/engine/main.ts").filter((line) => {
    const status = readFileSync(`/proc/${line.split(" ")[0]}/status`, "utf8");
    return status.includes(`PPid:\t${process.pid}\n`);
  });
}

describe("loading a model", () => {
  it("says what it will need before it takes it, and takes about that", async () => {
    let estimated = 0;
    await using model = await startTestEngine("tiny-scripted", {
      admit: (estimate) => {
        expect(estimate).toMatchObject({
          architecture: "llama",
          kind: "chat",
          context_size: 1024,
          sequences: 4,
        });
        estimated = estimate.bytes;
      },
    });
    await whole(model, chat("Hi"));
    const taken = await model.memoryBytes();
    expect(taken).toBeGreaterThan(50e6);
    expect(estimated).toBeGreaterThan(taken / 2);
    expect(estimated).toBeLessThan(taken * 2);
  });

  it("its process knows nothing of ours and yields to it", async () => {
    await using model = await startTestEngine("tiny-scripted");
    const environment = await readFile(`/proc/${model.pid}/environ`, "utf8");
    expect(
      environment.split("\0").filter((line) => !/^(UV_THREADPOOL_SIZE|NODE_CHANNEL_)/.test(line)),
    ).toEqual([""]);
    expect(await readFile(`/proc/${model.pid}/oom_score_adj`, "utf8")).toBe("500\n");
  });

  it("takes no context larger than the model was trained for", async () => {
    await using model = await startTestEngine("tiny-scripted", {
      load: { context_size: 1_000_000, sequences: 1 },
    });
    expect(model.info).toMatchObject({ context_size: 32_768, sequences: 1 });
  });

  it("that is not admitted fails with just that, and leaves no process", async () => {
    const full = new AppError("Unavailable", "No memory left.");
    const refused = startTestEngine("tiny-scripted", {
      admit: () => {
        throw full;
      },
    });
    await expect(refused).rejects.toBe(full);
    expect(engines()).toEqual([]);
  });

  it("can be given up at any moment", async () => {
    const early = new AbortController();
    early.abort(new Error("never mind"));
    await expect(startTestEngine("tiny-scripted", { signal: early.signal })).rejects.toThrow("never mind");
    const late = new AbortController();
    const loading = startTestEngine("tiny-scripted", {
      signal: late.signal,
      admit: () => {
        late.abort(new Error("never mind"));
        return new Promise(() => {});
      },
    });
    await expect(loading).rejects.toThrow("never mind");
    expect(engines()).toEqual([]);
  });

  it.each(broken)("of a file that is broken says so in words: $name", async ({ path }) => {
    const error = await startTestEngine("tiny-scripted", { path }).then(
      (model) => model.close(),
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(AppError);
    expect(error).toMatchObject({ code: "InvalidModel" });
    expect((error as AppError).message).not.toMatch(/\bat \w+.*:\d+|node_modules|undefined/);
    expect(engines()).toEqual([]);
  });
});

describe("a model's process", () => {
  it("that is killed in the middle of an answer fails it, to be tried again, and nothing else", async () => {
    await using other = await startTestEngine("tiny-scripted");
    const model = await startTestEngine("tiny-scripted");
    const into = emptyWhole();
    const running = whole(model, chat("count forever", { max_tokens: 1000 }), signal, into);
    const outcome = expect(running).rejects.toMatchObject({
      status: 503,
      options: { code: "engine_crashed", shouldRetry: true },
    });
    await expect.poll(() => into.usage.output_tokens).toBeGreaterThan(0);
    process.kill(model.pid, "SIGKILL");
    await outcome;
    expect(await model.closed).toMatchObject({ wanted: false, reason: expect.stringContaining("SIGKILL") });
    await expect(whole(model, chat("Hi"))).rejects.toMatchObject({ status: 503 });
    expect(await model.memoryBytes()).toBe(0);
    expect((await whole(other, chat("Hi"))).choices[0]?.finish).toBe("stop");
    await model.close();
  });

  it("that does not answer any more is ended", async () => {
    const model = await startTestEngine("tiny-scripted", { limits: { pingMs: 200, maxMissedPings: 15 } });
    process.kill(model.pid, "SIGSTOP");
    expect(await model.closed).toMatchObject({
      wanted: false,
      reason: expect.stringContaining("did not answer"),
    });
    expect(isAlive(model.pid)).toBe(false);
  });

  it("ends when it is closed, with what it was doing", async () => {
    const model = await startTestEngine("tiny-scripted");
    const into = emptyWhole();
    const running = whole(model, chat("count forever", { max_tokens: 1000 }), signal, into);
    const outcome = expect(running).rejects.toMatchObject({
      status: 503,
      options: { code: "model_unloaded" },
    });
    await expect.poll(() => into.usage.output_tokens).toBeGreaterThan(0);
    await Promise.all([model.close(), model.close()]);
    await outcome;
    expect(await model.closed).toMatchObject({ wanted: true, reason: "unloaded" });
    expect(isAlive(model.pid)).toBe(false);
  });

  it("ends when it is asked to by the system, but not by Ctrl+C at the studio's terminal", async () => {
    const model = await startTestEngine("tiny-scripted");
    process.kill(model.pid, "SIGINT");
    expect((await whole(model, chat("Hi"))).choices[0]?.finish).toBe("stop");
    process.kill(model.pid, "SIGTERM");
    expect(await model.closed).toMatchObject({ wanted: false });
  });

  it("does not outlive the studio", async () => {
    const studio = spawn(process.execPath, [CHILD, await cachedModel("tiny-scripted")], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    try {
      const ended = once(studio, "exit").then(() => [] as string[]);
      const [line] = await Promise.race([once(studio.stdout, "data"), ended]);
      const pid = Number(String(line));
      expect(isAlive(pid)).toBe(true);
      studio.kill("SIGKILL");
      await expect.poll(() => isAlive(pid)).toBe(false);
    } finally {
      studio.kill("SIGKILL");
    }
  });
});
