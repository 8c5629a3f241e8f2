import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { AcpClient, AcpError } from "./client.ts";

/** The other end of the pipe: what the client wrote, line by line, and a way to answer. */
function peer(maxLineBytes?: number) {
  const stdin = new PassThrough();
  const stdout = new PassThrough();
  const sent: Record<string, unknown>[] = [];
  const updates: unknown[] = [];
  const garbage: string[] = [];
  stdin.on("data", (chunk: Buffer) => {
    for (const line of chunk.toString().split("\n").filter(Boolean)) sent.push(JSON.parse(line));
  });
  const client = new AcpClient(
    { stdin, stdout },
    {
      onUpdate: (sessionId, update) => updates.push([sessionId, update]),
      onGarbage: (what) => garbage.push(what),
    },
    maxLineBytes,
  );
  const say = (message: unknown) => stdout.write(`${JSON.stringify(message)}\n`);
  return { client, sent, updates, garbage, say, stdout, stdin };
}

describe("ACP client", () => {
  it("matches answers to requests whatever their order, and errors by their code", async () => {
    const { client, say, sent } = peer();
    const first = client.request("a", { x: 1 }, 1000);
    const second = client.request("b", {}, 1000);
    say({ jsonrpc: "2.0", id: 2, error: { code: -32602, message: "bad mode", data: { mode: "nope" } } });
    say({ jsonrpc: "2.0", id: 1, result: { ok: true } });
    await expect(second).rejects.toEqual(new AcpError(-32602, "bad mode", { mode: "nope" }));
    expect(await first).toEqual({ ok: true });
    expect(sent).toEqual([
      { jsonrpc: "2.0", id: 1, method: "a", params: { x: 1 } },
      { jsonrpc: "2.0", id: 2, method: "b", params: {} },
    ]);
  });

  it("survives garbage, answers to nobody, cut chunks and lines beyond the limit", async () => {
    const { client, stdout, updates, garbage, say } = peer(200);
    stdout.write("not json\n[1,2]\n\n42\n");
    stdout.write(`"${"x".repeat(500)}`);
    stdout.write(`${"y".repeat(500)}"\n`);
    say({ jsonrpc: "2.0", id: 99, result: 1 });
    say({ jsonrpc: "2.0", method: "session/update", params: { sessionId: 5 } });
    const text = JSON.stringify({
      jsonrpc: "2.0",
      method: "session/update",
      params: { sessionId: "s", update: { t: "ä€" } },
    });
    const bytes = Buffer.from(`${text}\n`);
    for (const byte of bytes) stdout.write(Buffer.from([byte]));
    const answer = client.request("a", {}, 1000);
    say({ jsonrpc: "2.0", id: 1, result: "fine" });
    expect(await answer).toBe("fine");
    expect(updates).toEqual([["s", { t: "ä€" }]]);
    expect(garbage).toEqual(["not json", "[1,2]", "42", "a line of more than 200 bytes"]);
  });

  it("refuses permissions and what it does not know, but answers", async () => {
    const { say, sent } = peer();
    const options = [
      { kind: "allow_once", optionId: "y" },
      { kind: "reject_once", optionId: "n" },
    ];
    say({ jsonrpc: "2.0", id: "p", method: "session/request_permission", params: { options } });
    say({ jsonrpc: "2.0", id: "q", method: "session/request_permission", params: { options: "x" } });
    say({ jsonrpc: "2.0", id: 7, method: "fs/write_text_file", params: { path: "/etc/passwd" } });
    say({ jsonrpc: "2.0", method: "unknown/notification" });
    await expect.poll(() => sent.length, { timeout: 30_000 }).toBe(3);
    expect(sent).toEqual([
      { jsonrpc: "2.0", id: "p", result: { outcome: { outcome: "selected", optionId: "n" } } },
      { jsonrpc: "2.0", id: "q", result: { outcome: { outcome: "cancelled" } } },
      { jsonrpc: "2.0", id: 7, error: { code: -32601, message: "Not supported: fs/write_text_file" } },
    ]);
  });

  it("gives up a peer that asks and asks without reading the answers", async () => {
    const stdin = new PassThrough();
    const stdout = new PassThrough();
    const client = new AcpClient({ stdin, stdout }, { onUpdate: () => undefined });
    const open = client.request("a", {}, 60_000);
    const line = `${JSON.stringify({ id: "x".repeat(100_000), method: "fs/read_text_file" })}\n`;
    for (let count = 0; count < 100; count += 1) stdout.write(line);
    await expect(open).rejects.toMatchObject({ code: "RunFailed" });
    expect(stdin.writableLength).toBeLessThan(5 * 1024 * 1024);
  });

  it("lets no request wait for ever: time-out, abort, end of the peer", async () => {
    const { client, stdout } = peer();
    await expect(client.request("slow", {}, 20)).rejects.toMatchObject({ code: "Timeout" });
    const abort = new AbortController();
    const aborted = client.request("a", {}, 1000, abort.signal);
    abort.abort(new Error("stop"));
    await expect(aborted).rejects.toThrow("stop");
    const open = client.request("b", {}, 1000);
    stdout.end();
    await expect(open).rejects.toMatchObject({ code: "RunFailed" });
    await expect(client.request("c", {}, 1000)).rejects.toMatchObject({ code: "RunFailed" });
  });

  it("takes what cannot be worked with for garbage: an exception in a stream's handler would end the server", async () => {
    const stdin = new PassThrough();
    const stdout = new PassThrough();
    const garbage: string[] = [];
    const client = new AcpClient(
      { stdin, stdout },
      {
        onUpdate: (_sessionId, update) => void String(update.status),
        onGarbage: (what) => garbage.push(what),
      },
    );
    const update = (status: string) =>
      `{"method":"session/update","params":{"sessionId":"s","update":{"status":${status}}}}\n`;
    const answer = client.request("a", {}, 1000);
    stdout.write(update('{"toString":1,"valueOf":1}'));
    stdout.write(update(`${"[".repeat(20_000)}${"]".repeat(20_000)}`));
    stdout.write('{"id":1,"result":"still here"}\n');
    expect(await answer).toBe("still here");
    expect(garbage).toHaveLength(2);
  });
});
