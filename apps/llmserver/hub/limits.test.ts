import { mkdir, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { leavePart, partSize, startDownloads, TINY, withFaults } from "#tests/support/downloads.ts";
import { ggufBytes, startHub } from "#tests/support/hub.ts";

const TOKEN = "hf_a_secret_of_the_operator";

describe("limits", () => {
  it("of a file's size, by the caller and by the configuration", async () => {
    await using test = await withFaults({});
    const tooLarge = {
      code: "PayloadTooLarge",
      details: { size_bytes: TINY.length, limit_bytes: TINY.length - 1 },
    };
    expect(await test.downloads.fail("tiny.gguf", { maxBytes: TINY.length - 1 })).toMatchObject(tooLarge);
    await using set = await withFaults({}, { CDS_MAX_MODEL_BYTES: `${TINY.length - 1}` });
    expect(await set.downloads.fail("tiny.gguf", { maxBytes: TINY.length * 2 })).toMatchObject(tooLarge);
    expect([...test.hub.ranges(), ...set.hub.ranges()]).toEqual([]);
    await test.downloads.start("tiny.gguf", { maxBytes: TINY.length });
  });

  it("of the disk: some stays free, what is there already is not needed again", async () => {
    await using test = await withFaults({});
    const { hub, downloads } = test;
    const totalBytes = 10_000_000;
    const disk = (availableBytes: number) => ({ freeSpace: async () => ({ availableBytes, totalBytes }) });
    expect(await downloads.fail("tiny.gguf", disk(TINY.length + 499_999))).toMatchObject({
      code: "QuotaExceeded",
      details: { needed_bytes: TINY.length, available_bytes: TINY.length - 1 },
    });
    expect(await downloads.fail("tiny.gguf", disk(0))).toMatchObject({ details: { available_bytes: 0 } });
    expect(await readdir(downloads.directory)).toEqual([]);
    expect(hub.ranges()).toEqual([]);
    await leavePart(test.downloads, 100_000);
    await downloads.start("tiny.gguf", disk(TINY.length + 400_000));
    expect(hub.ranges()).toEqual(["bytes=100000-"]);
  });

  it("of the disk, with what other downloads still need", async () => {
    const hub = await startHub(
      { "a.gguf": TINY, "b.gguf": ggufBytes(TINY.length, 2) },
      { hold: { after: 100_000 } },
    );
    await using _hub = hub;
    await using downloads = await startDownloads(hub);
    const disk = { freeSpace: async () => ({ availableBytes: 1_000_000, totalBytes: 0 }) };
    const cancel = new AbortController();
    const first = downloads.fail("a.gguf", { ...disk, signal: cancel.signal });
    const part = join(downloads.directory, "a.gguf.part");
    await expect.poll(async () => (await stat(part).catch(() => undefined))?.size).toBe(100_000);
    expect(await downloads.fail("b.gguf", disk)).toMatchObject({
      code: "QuotaExceeded",
      details: { needed_bytes: TINY.length, available_bytes: 500_000 },
    });
    cancel.abort();
    await first;
    delete hub.faults.hold;
    await downloads.start("b.gguf", disk);
  });

  it("a directory that cannot be used", async () => {
    await using test = await withFaults({});
    const { directory } = test.downloads;
    await writeFile(join(directory, "file"), "");
    const failure = await test.downloads.fail("tiny.gguf", { directory: join(directory, "file", "models") });
    expect(failure).toMatchObject({
      code: "DownloadFailed",
      message: "The models directory cannot be used (ENOTDIR).",
    });
    await mkdir(join(directory, "tiny.gguf.part"));
    expect(await test.downloads.fail("tiny.gguf")).toMatchObject({
      code: "DownloadFailed",
      message: expect.stringMatching(/^The models directory cannot be used \(ERR_FS_EISDIR|EISDIR\)/),
    });
  });
});

describe("cancelling", () => {
  it("before the start, and while the hub thinks: at once, and nothing is left", async () => {
    await using test = await withFaults({ silent: true });
    expect(await test.downloads.fail("tiny.gguf", { signal: AbortSignal.abort() })).toMatchObject({
      code: "Cancelled",
    });
    expect(test.hub.requests).toEqual([]);
    const cancel = new AbortController();
    const failure = test.downloads.fail("tiny.gguf", { signal: cancel.signal });
    await expect.poll(() => test.hub.requests.length).toBe(1);
    cancel.abort();
    expect(await failure).toMatchObject({ code: "Cancelled" });
    expect(await readdir(test.downloads.directory)).toEqual([]);
  }, 20_000);

  it("while what is there already is read: it is kept", async () => {
    await using test = await withFaults({});
    const { hub, downloads } = test;
    await leavePart(downloads, 100_000);
    const cancel = new AbortController();
    const options = {
      signal: cancel.signal,
      // Asked for just before the reading.
      async freeSpace() {
        cancel.abort();
        return { availableBytes: 1e9, totalBytes: 1e9 };
      },
    };
    expect(await downloads.fail("tiny.gguf", options)).toMatchObject({ code: "Cancelled" });
    expect(await partSize(downloads)).toBe(100_000);
    await downloads.start("tiny.gguf");
    expect(hub.ranges()).toEqual(["bytes=100000-"]);
  });

  it("gives the signal's own reason where it is one of ours", async () => {
    await using test = await withFaults({ hold: { after: 0 } });
    const reason = new AppError("Unavailable", "The server is stopping.");
    const cancel = new AbortController();
    const failure = test.downloads.fail("tiny.gguf", { signal: cancel.signal });
    await expect.poll(() => test.hub.ranges().length).toBe(1);
    cancel.abort(reason);
    expect(await failure).toBe(reason);
  }, 20_000);
});

describe("the token", () => {
  it("is sent to the hub, and is in no error, no log and no result", async () => {
    await using test = await withFaults({}, { HF_TOKEN: TOKEN });
    const model = await test.downloads.start("tiny.gguf");
    expect(new Set(test.hub.requests.map((seen) => seen.authorization))).toEqual(
      new Set([`Bearer ${TOKEN}`]),
    );
    test.hub.faults.status = { of: "api", code: 401, times: 100 };
    const failure = await test.downloads.fail("tiny.gguf");
    expect(failure).toMatchObject({ code: "DownloadFailed" });
    const told = [model, failure, test.downloads.progress, test.downloads.logged];
    expect(JSON.stringify(told)).not.toContain(TOKEN);
  });
});
