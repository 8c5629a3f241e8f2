import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { DownloadView } from "#schemas";
import { cachedModel } from "#tests/support/gguf/index.ts";
import { ggufBytes, sha256, startHub, type TestHub } from "#tests/support/hub.ts";
import { type MachineModels, startMachineModels } from "#tests/support/machine-models.ts";

const NEVER = new AbortController().signal;

describe("[LLM-3] downloadModel", () => {
  let hub: TestHub;
  let machine: MachineModels;
  beforeEach(async () => {
    const more = Array.from({ length: 20 }, (_, index) => [`more-${index}.gguf`, ggufBytes(5000, index)]);
    hub = await startHub({
      "tiny-bpe.gguf": await readFile(await cachedModel("tiny-bpe")),
      "two words.gguf": ggufBytes(5000),
      "demo.gguf": ggufBytes(5000),
      ...Object.fromEntries(more),
    });
    machine = await startMachineModels([], { HF_ENDPOINT: hub.url, CDS_DOWNLOAD_IDLE_TIMEOUT_MS: "20000" });
  });
  afterEach(async () => {
    await machine?.[Symbol.asyncDispose]();
    await hub?.[Symbol.asyncDispose]();
  });

  const start = (file: string, model_id?: string) =>
    machine.models.downloadModel(`acme/tiny/${file}`, { model_id });
  const over = async ({ id }: { id: string }): Promise<DownloadView> => {
    let last: DownloadView | undefined;
    for await (const view of machine.models.watch(id, NEVER)) last = view;
    if (last === undefined) throw new Error("nothing was told");
    return last;
  };
  const names = async () => (await machine.models.listModels()).map(({ name }) => name);
  const states = () => machine.models.downloads().map(({ state }) => state);

  it("[LLM-3] fetches in the background, tells how far it is, and what has arrived is a model", async () => {
    const started = await machine.models.downloadModel(`${hub.url}/acme/tiny/resolve/main/tiny-bpe.gguf`, {
      config: { context_size: 128 },
    });
    expect(started).toMatchObject({ model_id: "tiny-bpe", state: "resolving", bytes: 0, ended_at: null });
    const seen: DownloadView[] = [];
    for await (const view of machine.models.watch(started.id, NEVER)) seen.push(view);
    const file = await readFile(await cachedModel("tiny-bpe"));
    expect(seen.at(-1)).toMatchObject({ state: "done", bytes: file.length, total: file.length });
    expect(machine.models.downloads()).toEqual([seen.at(-1)]);
    const [model] = await machine.models.listModels();
    expect(model).toMatchObject({
      ...{ name: "tiny-bpe", sha256: sha256(file), size_bytes: file.length, config: { context_size: 128 } },
      huggingface_url: `${hub.url}/acme/tiny/resolve/main/tiny-bpe.gguf`,
    });
    using use = await machine.models.open("tiny-bpe", NEVER);
    expect(use.model.info.context_size).toBe(128);
    // The same again is no mistake.
    expect(await over(await start("tiny-bpe.gguf"))).toMatchObject({ state: "done" });
  });

  it("gives the name it was told, also when the directory is looked through meanwhile", async () => {
    hub.faults.trickle = { bytes: 500, everyMs: 1 };
    const started = await start("more-6.gguf", "words");
    const looking = (async () => {
      while (states()[0] !== "done") await machine.models.listModels();
    })();
    expect(await over(started)).toMatchObject({ state: "done", model_id: "words" });
    await looking;
    expect(await names()).toEqual(["words"]);
  });

  it("refuses by name what cannot be a model's name or address, before anything is asked", async () => {
    for (const [file, model_id] of [
      ["two words.gguf", undefined],
      ["demo.gguf", undefined],
      ["more-1.gguf", "a/b"],
      ["more-1.gguf", "demo"],
      ["more-1.bin", undefined],
    ] as const) {
      await expect(start(file, model_id)).rejects.toMatchObject({ code: "InvalidParams" });
    }
    await expect(machine.models.downloadModel("https://example.com/x.gguf")).rejects.toMatchObject({
      code: "InvalidParams",
    });
    expect(hub.requests).toEqual([]);
  });

  it("never puts one model in another's place", async () => {
    await over(await start("more-1.gguf", "mine"));
    await expect(start("more-2.gguf", "mine")).rejects.toMatchObject({ code: "Conflict" });
    await writeFile(join(machine.directory, "more-3.gguf"), "GGUF and something of one's own");
    const ended = await over(await start("more-3.gguf"));
    expect(ended).toMatchObject({ state: "failed", error: { code: "Conflict", hint: expect.any(String) } });
    expect((await readFile(join(machine.directory, "more-3.gguf"))).length).toBe(31);
  });

  it("tells what failed, and the next start goes on", async () => {
    hub.faults.status = { of: "api", code: 404, times: 1 };
    expect(await over(await start("more-1.gguf"))).toMatchObject({
      state: "failed",
      error: { code: "NotFound", hint: expect.any(String) },
    });
    expect(await over(await start("more-1.gguf"))).toMatchObject({ state: "done" });
  });

  it("runs two at once, lets some wait, refuses more, and the same only once", async () => {
    hub.faults.hold = { after: 1000 };
    const first = await start("more-0.gguf");
    await expect(start("more-0.gguf", "other-name")).rejects.toMatchObject({
      code: "Conflict",
      details: { download_id: first.id },
    });
    for (let index = 1; index < 18; index += 1) await start(`more-${index}.gguf`);
    await expect.poll(() => states().slice(0, 2)).toEqual(["downloading", "downloading"]);
    expect(states().slice(2)).toEqual(Array(16).fill("queued"));
    expect((await machine.models.status()).downloads).toBe(18);
    await expect(start("more-18.gguf")).rejects.toMatchObject({ code: "RateLimited" });
    const waiting = machine.models.downloads()[5] as DownloadView;
    expect(await machine.models.cancelDownload(waiting.id)).toMatchObject({ state: "cancelled", bytes: 0 });
    // One that ends lets the next one go.
    expect(await machine.models.cancelDownload(first.id)).toMatchObject({
      state: "cancelled",
      error: { code: "Cancelled" },
    });
    await expect.poll(() => states().slice(0, 3)).toEqual(["cancelled", "downloading", "downloading"]);
    delete hub.faults.hold;
  });

  it("goes on from where a cancelled one, or a server that was stopped, has left off", async () => {
    hub.faults.hold = { after: 2000 };
    const held = async () => {
      const started = await start("more-4.gguf");
      await expect
        .poll(async () => (await stat(join(machine.directory, "more-4.gguf.part"))).size)
        .toBe(2000);
      return started;
    };
    const started = await held();
    await machine.models.cancelDownload(started.id);
    await machine.models.cancelDownload(started.id);
    hub.faults.hold = { after: 0 };
    const stopped = over(await held());
    await machine.restart();
    expect(await stopped).toMatchObject({ state: "cancelled" });
    expect(machine.models.downloads()).toEqual([]);
    delete hub.faults.hold;
    expect(await over(await start("more-4.gguf"))).toMatchObject({ state: "done" });
    expect(hub.ranges().at(-1)).toBe("bytes=2000-");
    await rm(join(machine.directory, "more-4.gguf"));
  });

  it("knows nothing of downloads that never were", async () => {
    await expect(machine.models.cancelDownload("dl_none")).rejects.toMatchObject({ code: "NotFound" });
    expect(() => machine.models.watch("dl_none", NEVER)).toThrow("no such download");
  });

  it("is watched by whoever wants to, for as long as they want to", async () => {
    hub.faults.hold = { after: 1000 };
    const { id } = await start("more-5.gguf");
    const leaver = new AbortController();
    const seen: string[] = [];
    const watching = (async () => {
      for await (const { state } of machine.models.watch(id, leaver.signal)) seen.push(state);
    })();
    await expect.poll(() => seen.at(-1)).toBe("downloading");
    leaver.abort();
    await watching;
    expect(states()).toEqual(["downloading"]);
  });
});
