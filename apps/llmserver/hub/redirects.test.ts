import { readdir } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { createLogger } from "#platform/log.ts";
import { startDownloads } from "#tests/support/downloads.ts";
import { ggufBytes, startHub } from "#tests/support/hub.ts";
import { connector } from "../remote/connector.ts";
import { withAttempts } from "./attempts.ts";
import { discard, HubHttp } from "./hub-http.ts";

const DATA = ggufBytes(50_000);
const TOKEN = "hf_a_secret_of_the_operator";
const log = createLogger({ level: "silent", pretty: false });
const signal = new AbortController().signal;

describe("where a hub may lead", () => {
  it("not to a host that is not allowed, and the host is told to the log alone", async () => {
    await using hub = await startHub({ "tiny.gguf": DATA });
    await using downloads = await startDownloads(hub);
    for (const redirect of [
      "http://169.254.169.254/latest/meta-data/",
      "https://evil.example/x",
      "https://huggingface.co.evil.example/x",
      "https://evilhuggingface.co/x",
      "https://hf.co/x",
      "http://localhost:1/x",
      "http://[::1]:1/x",
      "ftp://huggingface.co/x",
      "file:///etc/passwd",
      "data:text/plain,x",
      "javascript:x",
      "https://me:pw@huggingface.co/x",
    ]) {
      hub.faults.redirect = redirect;
      const failure = await downloads.fail("tiny.gguf");
      expect(failure, redirect).toMatchObject({
        code: "DownloadFailed",
        message: expect.stringMatching(/^The model hub redirects to where this server does not follow: it/),
        details: { hint: expect.stringContaining("CDS_MODEL_HOSTS") },
      });
      expect(JSON.stringify(failure)).not.toMatch(/169\.254|evil|localhost/);
    }
    expect(downloads.logged.join()).toContain("169.254.169.254");
    expect(hub.ranges()).toEqual([]);
    expect(await readdir(downloads.directory)).toEqual([]);
  });

  it("not to a private or link-local address, whatever it is called and however it is written", async () => {
    await using hub = await startHub({ "tiny.gguf": DATA });
    await using victim = await startHub({ "tiny.gguf": DATA });
    const path = new URL(victim.blob("tiny.gguf")).pathname;
    const hosts = [
      // A name that leads to loopback: only the address shows it.
      "localhost",
      "127.0.0.1",
      "2130706433",
      "0x7f000001",
      "0x7f.1",
      "0177.0.0.1",
      "127.1",
      "[::1]",
      "[::ffff:127.0.0.1]",
      "[::ffff:7f00:1]",
      "[64:ff9b::7f00:1]",
      "0.0.0.0",
      "[::]",
      "10.0.0.1",
      "192.168.0.1",
      "169.254.169.254",
      "[fe80::1]",
      "[fd00:ec2::254]",
    ];
    // All are allowed by name: what refuses is the address.
    const allowed = hosts.map((host) => new URL(`http://${host}`).hostname).join(",");
    await using downloads = await startDownloads(hub, { CDS_MODEL_HOSTS: allowed });
    for (const host of hosts) {
      hub.faults.redirect = `http://${host}:${victim.port}${path}`;
      const failure = await downloads.fail("tiny.gguf");
      expect(failure, host).toMatchObject({
        code: "DownloadFailed",
        message: "The download leads to an address that is not allowed: a private or link-local one.",
      });
      expect(JSON.stringify(failure)).not.toMatch(/127\.0|localhost|7f00|169\.254/);
    }
    expect(victim.requests).toEqual([]);
  });

  it("not to another port of its own machine", async () => {
    await using hub = await startHub({ "tiny.gguf": DATA });
    await using neighbour = await startHub({ "tiny.gguf": DATA });
    await using downloads = await startDownloads(hub);
    hub.faults.redirect = neighbour.blob("tiny.gguf");
    expect(await downloads.fail("tiny.gguf")).toMatchObject({
      message: expect.stringContaining("address that is not allowed"),
    });
    expect(neighbour.requests).toEqual([]);
  });

  it("not on and on", async () => {
    await using hub = await startHub({ "tiny.gguf": DATA }, { redirect: "endless" });
    await using downloads = await startDownloads(hub);
    expect(await downloads.fail("tiny.gguf")).toMatchObject({
      code: "DownloadFailed",
      message: "The model hub redirected more than 5 times.",
    });
    expect(hub.requests.filter(({ method }) => method === "GET")).toHaveLength(6);
  });

  it.each(["http://", "https://exa mple/", "http://[::1", "//"])(
    "not to %j, which is nowhere",
    async (redirect) => {
      await using hub = await startHub({ "tiny.gguf": DATA }, { redirect });
      await using downloads = await startDownloads(hub);
      expect(await downloads.fail("tiny.gguf")).toMatchObject({
        message: "The model hub redirects to nowhere.",
      });
    },
  );

  it("only by https, and never to a private address, when nobody set another hub", async () => {
    await using hub = await startHub({ "tiny.gguf": DATA });
    const unset = { ...hub.config({ HF_TOKEN: TOKEN }), endpointGiven: false };
    await using http = new HubHttp(unset, log);
    const toItself = http.send({ method: "GET", url: new URL(hub.blob("tiny.gguf")), signal });
    await expect(toItself).rejects.toMatchObject({ code: "CDS_REFUSED_ADDRESS" });
    await using secure = new HubHttp({ ...unset, endpoint: hub.url.replace("http:", "https:") }, log);
    const plain = secure.send({ method: "GET", url: new URL(hub.blob("tiny.gguf")), signal });
    await expect(plain).rejects.toMatchObject({ message: expect.stringMatching(/it is not https/) });
    expect(hub.requests).toEqual([]);
  });
});

describe("another host that is allowed", () => {
  it("is followed to, and never gets the token", async () => {
    await using other = await startHub({ "tiny.gguf": DATA });
    await using hub = await startHub({ "tiny.gguf": DATA });
    hub.faults.redirect = other.blob("tiny.gguf").replace("127.0.0.1", "localhost");
    const config = hub.config({ HF_TOKEN: TOKEN, CDS_MODEL_HOSTS: "LOCALHOST" });
    // A public address is what another host has; here there is none, so the check of addresses is left out.
    await using http = new HubHttp(config, log, connector(1000, true));
    const url = new URL(`${hub.url}/acme/tiny/resolve/main/tiny.gguf`);
    const answer = await http.send({ method: "GET", url, headers: { range: "bytes=7-" }, signal });
    expect(answer).toMatchObject({ status: 206, headers: { "content-range": `bytes 7-49999/50000` } });
    discard(answer.body);
    expect(hub.requests[0]?.authorization).toBe(`Bearer ${TOKEN}`);
    expect(other.requests).toMatchObject([{ range: "bytes=7-", authorization: undefined }]);
  });

  it("may be any below one that is allowed with a star, and not that one itself", async () => {
    await using hub = await startHub({ "tiny.gguf": DATA });
    const config = hub.config({ CDS_MODEL_HOSTS: "*.CDN.example, exact.example" });
    const seen: string[] = [];
    await using http = new HubHttp(config, log, ({ hostname }, callback) => {
      seen.push(hostname);
      callback(new Error("seen"), null);
    });
    for (const host of ["a.cdn.example", "b.a.cdn.example", "exact.example"]) {
      const sent = http.send({ method: "GET", url: new URL(`https://${host}/x`), signal });
      await expect(sent, host).rejects.toThrow("seen");
    }
    for (const host of ["cdn.example", "xcdn.example", "a.exact.example", "exact.example."]) {
      const sent = http.send({ method: "GET", url: new URL(`https://${host}/x`), signal });
      await expect(sent, host).rejects.toMatchObject({ code: "DownloadFailed" });
    }
    expect(seen).toEqual(["a.cdn.example", "b.a.cdn.example", "exact.example"]);
  });

  it("that never lets one connect is left at once by whoever cancels", async () => {
    await using hub = await startHub({ "tiny.gguf": DATA });
    const config = hub.config({ CDS_MODEL_HOSTS: "slow.example" });
    const connecting = Promise.withResolvers<void>();
    await using http = new HubHttp(config, log, () => connecting.resolve());
    const cancel = new AbortController();
    const options = { signal: cancel.signal, log, idleTimeoutMs: 600_000 };
    const url = new URL("https://slow.example/x");
    const sent = withAttempts(options, (attempt) =>
      http.send({ method: "GET", url, signal: attempt.signal }),
    );
    await connecting.promise;
    cancel.abort();
    await expect(sent).rejects.toMatchObject({ code: "Cancelled" });
  }, 20_000);
});
