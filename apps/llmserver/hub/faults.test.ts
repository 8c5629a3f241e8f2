import { readdir, readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { describe, expect, it } from "vitest";
import { leavePart, partSize, TINY, withFaults } from "#tests/support/downloads.ts";
import { ggufBytes, type HubFaults } from "#tests/support/hub.ts";

describe("what is tried again", () => {
  it("a connection that drops, again and again, as long as there is progress", async () => {
    await using test = await withFaults({ drop: { after: 50_000, times: 11 } });
    const model = await test.downloads.start("tiny.gguf");
    expect((await readFile(model.path)).equals(TINY)).toBe(true);
    const starts = test.hub.ranges().map((range) => Number(/\d+/.exec(range ?? "")?.[0]));
    expect(starts).toHaveLength(12);
    // What a broken connection had brought and nobody had read yet is fetched again, so it may be a little less.
    for (const [index, start] of starts.entries()) expect(start).toBeLessThanOrEqual(index * 50_000);
    expect(starts).toEqual(starts.toSorted((a, b) => a - b));
    expect(new Set(starts).size).toBe(12);
  });

  it("a connection that drops without progress: six times, then what has arrived is kept", async () => {
    await using test = await withFaults({ drop: { after: 0, times: Number.POSITIVE_INFINITY } });
    const { hub, downloads } = test;
    await leavePart(test.downloads, 5000);
    expect(await downloads.fail("tiny.gguf")).toMatchObject({ code: "DownloadFailed" });
    expect(hub.ranges()).toEqual(Array.from({ length: 6 }, () => "bytes=5000-"));
    expect(await partSize(downloads)).toBe(5000);
  });

  it("a hub that ignores ranges and always drops is no endless loop: coming as far as before is no progress", async () => {
    await using test = await withFaults({
      range: "ignored",
      drop: { after: 100_000, times: Number.POSITIVE_INFINITY },
    });
    expect(await test.downloads.fail("tiny.gguf")).toMatchObject({ code: "DownloadFailed" });
    // The first came further than ever, the six after it did not.
    expect(test.hub.ranges()).toHaveLength(6);
  });

  it.each(["api", "file"] as const)(
    "status 503, 429 and their like, of questions and of files (%s)",
    async (of) => {
      for (const code of [503, 429, 500, 408]) {
        await using test = await withFaults({ status: { of, code, times: 5 } });
        await test.downloads.start("tiny.gguf");
        expect(test.hub.faults.status?.times).toBe(0);
      }
      await using test = await withFaults({ status: { of, code: 503, times: 100 } });
      const failure = await test.downloads.fail("tiny.gguf");
      expect(failure).toMatchObject({
        code: "DownloadFailed",
        message: "The model hub answered with status 503.",
      });
      expect(test.hub.faults.status?.times).toBe(94);
    },
  );

  it("no sooner than the hub asks for, and a cancel does not wait for that", async () => {
    await using test = await withFaults({ status: { of: "file", code: 429, times: 100, retryAfter: "600" } });
    const cancel = new AbortController();
    const failure = test.downloads.fail("tiny.gguf", { signal: cancel.signal });
    await expect.poll(() => test.downloads.logged.length).toBe(1);
    cancel.abort();
    expect(await failure).toMatchObject({ code: "Cancelled" });
    expect(test.hub.faults.status?.times).toBe(99);
  }, 20_000);

  it("an answer that ends early in good order", async () => {
    await using test = await withFaults({ truncate: { after: 200_000 } });
    await test.downloads.start("tiny.gguf");
    expect(test.hub.ranges()).toEqual(["bytes=0-", "bytes=200000-", "bytes=400000-"]);
  });

  it("silence within a file, until there is none", async () => {
    await using test = await withFaults(
      { hold: { after: 100_000 } },
      { CDS_DOWNLOAD_IDLE_TIMEOUT_MS: "300" },
    );
    const model = test.downloads.start("tiny.gguf");
    await expect.poll(() => test.hub.ranges().length).toBeGreaterThanOrEqual(2);
    delete test.hub.faults.hold;
    expect((await readFile((await model).path)).equals(TINY)).toBe(true);
    expect(test.downloads.logged.join()).toContain("The model hub sends nothing.");
  });

  it("silence, six times, of a file and of a question", async () => {
    const env = { CDS_DOWNLOAD_IDLE_TIMEOUT_MS: "300" };
    const nothing = { code: "DownloadFailed", message: "The model hub sends nothing." };
    await using file = await withFaults({ hold: { after: 0 } }, env);
    expect(await file.downloads.fail("tiny.gguf")).toMatchObject(nothing);
    expect(file.hub.ranges()).not.toEqual([]);
    expect(file.downloads.logged.length).toBeGreaterThanOrEqual(6);
    await using question = await withFaults({ silent: true }, env);
    expect(await question.downloads.fail("tiny.gguf")).toMatchObject(nothing);
    expect(question.downloads.logged).toHaveLength(6);
  });

  it("a trickle, which would hold a download for ever, is silence", async () => {
    await using test = await withFaults(
      { trickle: { bytes: 10, everyMs: 20 } },
      { CDS_DOWNLOAD_IDLE_TIMEOUT_MS: "200" },
    );
    expect(await test.downloads.fail("tiny.gguf")).toMatchObject({ message: "The model hub sends nothing." });
  });

  it("a slow line is none: every byte counts that comes in time", async () => {
    await using test = await withFaults(
      { trickle: { bytes: 40_000, everyMs: 50 } },
      { CDS_DOWNLOAD_IDLE_TIMEOUT_MS: "10000" },
    );
    await test.downloads.start("tiny.gguf");
    expect(test.hub.ranges()).toEqual(["bytes=0-"]);
    const { progress } = test.downloads;
    expect(
      progress.some(({ state, bytes_per_second }) => state === "downloading" && bytes_per_second > 0),
    ).toBe(true);
    const bytes = progress.map((told) => told.bytes);
    expect(bytes).toEqual(bytes.toSorted((a, b) => a - b));
  });

  it("a hub that is not there", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((done) => server.once("listening", done));
    const address = server.address();
    await new Promise((done) => server.close(done));
    const port = typeof address === "object" && address !== null ? address.port : 0;
    await using test = await withFaults({}, { HF_ENDPOINT: `http://127.0.0.1:${port}` });
    expect(await test.downloads.fail("tiny.gguf")).toMatchObject({
      code: "DownloadFailed",
      message: "The model hub cannot be reached (ECONNREFUSED).",
    });
    expect(test.downloads.logged).toHaveLength(6);
  });
});

describe("ranges", () => {
  it("ignored: the file is taken from its beginning", async () => {
    await using test = await withFaults({ range: "ignored" });
    await leavePart(test.downloads, 100_000);
    const model = await test.downloads.start("tiny.gguf");
    expect(test.hub.ranges()).toEqual(["bytes=100000-"]);
    expect((await readFile(model.path)).equals(TINY)).toBe(true);
  });

  it.each(["shifted", "unnamed", "of another size"] as const)(
    "%s: refused, the part is kept",
    async (range) => {
      await using test = await withFaults({ range });
      const { hub, downloads } = test;
      await leavePart(test.downloads, 100_000);
      expect(await downloads.fail("tiny.gguf")).toMatchObject({
        code: "DownloadFailed",
        message: "The model hub answered with another piece of the file than was asked for.",
      });
      expect(await partSize(downloads)).toBe(100_000);
      expect(hub.ranges()).toEqual(["bytes=100000-"]);
    },
  );

  it("refused as impossible: once more from the beginning", async () => {
    await using test = await withFaults({});
    const { hub, downloads } = test;
    await leavePart(test.downloads, 5000);
    hub.faults.range = "unsatisfiable";
    expect(await downloads.fail("tiny.gguf")).toMatchObject({ code: "DownloadFailed" });
    expect(hub.ranges()).toEqual(["bytes=5000-", "bytes=0-"]);
  });
});

describe("what is not the file", () => {
  it("is found out by its sha256, and nothing of it is kept", async () => {
    await using test = await withFaults({ corrupt: true });
    expect(await test.downloads.fail("tiny.gguf")).toMatchObject({
      code: "DownloadFailed",
      message: "The file is not what the hub says it is: its sha256 differs.",
    });
    expect(await readdir(test.downloads.directory)).toEqual([]);
    delete test.hub.faults.corrupt;
    await test.downloads.start("tiny.gguf");
  });

  it.each<[string, HubFaults, RegExp]>([
    ["a sign-in page for the file", { page: "file" }, /web page came instead/],
    ["a sign-in page for a question", { page: "api" }, /answer is not JSON/],
    ["an encoded file", { contentEncoding: "gzip" }, /comes encoded/],
    ["more than the file has", { surplus: 70_000 }, /More came than the file has bytes/],
    [
      "more, and the range ignored",
      { surplus: 70_000, range: "ignored" },
      /More came than the file has bytes/,
    ],
    ["a file changed in the meantime", { linkedOid: "c".repeat(64) }, /has changed on the hub/],
    ["a size that is too small", { info: claim({ size: TINY.length - 1 }) }, /another piece/],
    ["a size that is too large", { info: claim({ size: TINY.length + 1 }) }, /another piece/],
    [
      "a size that is too small, range ignored",
      { info: claim({ size: 500 }), range: "ignored" },
      /More came than/,
    ],
    [
      "a size that is too large, range ignored",
      { info: claim({ size: TINY.length + 1 }), range: "ignored" },
      /ends early/,
    ],
    ["no sha256", { info: (truth) => ({ ...truth, lfs: undefined }) }, /knows no sha256 of this file/],
    ["an empty sha256", { info: (truth) => ({ ...truth, lfs: null }) }, /knows no sha256 of this file/],
    ["a sha256 that is none", { info: claim({ oid: "../../x" }) }, /answered something unexpected/],
    ["a size below nothing", { info: claim({ size: -1 }) }, /answered something unexpected/],
    ["a size that is no number", { info: claim({ size: "9" }) }, /answered something unexpected/],
    ["something else altogether", { info: () => 7 }, /answered something unexpected/],
  ])("%s", async (_name, faults, message) => {
    await using test = await withFaults(faults);
    const failure = await test.downloads.fail("tiny.gguf");
    expect(failure).toMatchObject({ code: "DownloadFailed", message: expect.stringMatching(message) });
    expect(await readdir(test.downloads.directory)).not.toContain("tiny.gguf");
  });

  it("a web page in the middle costs nothing of what was there", async () => {
    await using test = await withFaults({ page: "file" });
    const { hub, downloads } = test;
    await leavePart(test.downloads, 100_000);
    expect(await downloads.fail("tiny.gguf")).toMatchObject({ message: expect.stringMatching(/web page/) });
    expect(await partSize(downloads)).toBe(100_000);
    delete hub.faults.page;
    await downloads.start("tiny.gguf");
    expect(hub.ranges()).toEqual(["bytes=100000-"]);
  });

  it.each<[string, Buffer, RegExp]>([
    [
      "a web page with a sha256",
      Buffer.from("<!doctype html><title>Not a model</title>"),
      /web page, not a model/,
    ],
    ["a file of another kind", Buffer.alloc(5000, 7), /does not begin with GGUF/],
    ["an absurd header", Buffer.concat([ggufBytes(24).subarray(0, 8), Buffer.alloc(100, 255)]), /absurd/],
  ])("%s is no model, verified or not", async (_name, data, message) => {
    await using test = await withFaults({}, {}, data);
    const failure = await test.downloads.fail("tiny.gguf");
    expect(failure).toMatchObject({ code: "InvalidModel", message: expect.stringMatching(message) });
    expect(await readdir(test.downloads.directory)).toEqual([]);
  });

  it("a repository or file that is not there, or not for us", async () => {
    await using test = await withFaults({});
    const { hub, downloads } = test;
    expect(await downloads.fail("other.gguf")).toMatchObject({ code: "NotFound" });
    expect(await downloads.fail("hf:acme/other/x.gguf")).toMatchObject({ code: "NotFound" });
    for (const code of [401, 403]) {
      hub.faults.status = { of: "api", code, times: 1 };
      expect(await downloads.fail("tiny.gguf")).toMatchObject({
        code: "DownloadFailed",
        message: expect.stringMatching(/private or gated/),
        details: { hint: expect.stringContaining("HF_TOKEN") },
      });
    }
    hub.faults.status = { of: "file", code: 404, times: 1 };
    expect(await downloads.fail("tiny.gguf")).toMatchObject({ code: "NotFound" });
    hub.faults.status = { of: "file", code: 418, times: 1 };
    expect(await downloads.fail("tiny.gguf")).toMatchObject({
      message: "The model hub answered with status 418.",
    });
    expect(await readdir(downloads.directory)).toEqual([]);
  });
});

/** What is told of a file's content, with something changed. */
function claim(change: Record<string, unknown>) {
  return (truth: Record<string, unknown>) => ({ ...truth, lfs: { ...(truth.lfs as object), ...change } });
}
