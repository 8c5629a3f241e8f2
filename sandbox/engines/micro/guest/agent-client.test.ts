import { type Duplex, duplexPair } from "node:stream";
import { describe, expect, it } from "vitest";
import { AgentClient } from "./agent-client.ts";
import type { ExecRequest } from "./program.ts";
import { encodeJson, encodeStdin, NONCE_BYTES, syncFrame } from "./protocol.ts";

const READY_MS = 20_000;
const REQUEST: ExecRequest = { argv: ["x"], env: {}, timeoutMs: 20_000, outputBytes: 10 };

/** A guest whose agent has been replaced: it greets well, then says to the first request what it is told to say. */
async function hostile(answer: (guest: Duplex) => void): Promise<AgentClient> {
  const [host, guest] = duplexPair();
  let heard = 0;
  guest.on("data", (data: Buffer) => {
    if (heard === 0) {
      const nonce = data.subarray(-NONCE_BYTES);
      guest.write(Buffer.concat([syncFrame(nonce), encodeJson({ event: "ready", version: 1 })]));
    } else if (heard === 1) answer(guest);
    heard += 1;
  });
  guest.on("error", () => undefined);
  return AgentClient.connect(host, { readyMs: READY_MS });
}

const say = (...messages: object[]) => Buffer.concat(messages.map(encodeJson));
const started = say({ id: 1, event: "started", pid: 2 });
function output(id: number, text: string): Buffer {
  const frame = encodeStdin(id, Buffer.from(text));
  frame.writeUInt8(2, 4);
  return frame;
}

describe("a guest that is not what it was", () => {
  it.each([
    ["an answer nobody asked for", say({ id: 9, ok: true })],
    ["an answer in place of news", say({ id: 1, ok: true })],
    ["an end before the start", say({ id: 1, event: "exit", code: 0, signal: null })],
    ["two starts", Buffer.concat([started, started])],
    ["a second greeting", say({ event: "ready", version: 1 })],
    ["output before the start", output(1, "x")],
    ["more output than was asked for", Buffer.concat([started, output(1, "x".repeat(11))])],
    ["empty output", Buffer.concat([started, output(1, "")])],
    ["output of another program", Buffer.concat([started, output(2, "x")])],
    [
      "thanks for input that was not given",
      Buffer.concat([started, say({ id: 1, event: "stdin", bytes: 1 })]),
    ],
    ["noise", Buffer.alloc(100_000, 0xee)],
    ["a complaint", say({ event: "error", error: "you are wrong" })],
  ])("[SB-micro] %s ends the connection, with a typed error for all who wait", async (_name, bytes) => {
    const client = await hostile((guest) => guest.write(bytes));
    const running = client.exec(REQUEST);
    await expect(running).rejects.toMatchObject({ code: "Unavailable" });
    expect(await client.closed).toMatchObject({ code: "Unavailable" });
    await expect(client.ping()).rejects.toMatchObject({ code: "Unavailable" });
  });

  it("[SB-micro] silence is a time-out, at the greeting as well", async () => {
    const [host, guest] = duplexPair();
    guest.resume();
    await expect(AgentClient.connect(host, { readyMs: 20 })).rejects.toMatchObject({ code: "Timeout" });
    const client = await hostile(() => undefined);
    await expect(client.ping(20)).rejects.toMatchObject({ code: "Timeout" });
    expect(await client.closed).toMatchObject({ code: "Timeout" });
  });

  it("its words reach nobody's terminal, and not in full", async () => {
    const error = `\u001b[31m${"x".repeat(2000)}\n`;
    const client = await hostile((guest) => guest.write(say({ id: 1, error, errno: "ENOENT" })));
    const failure = client.write("a", Buffer.from("b")).catch((thrown: Error) => thrown.message);
    expect(await failure).toMatch(/^[\x20-\x7e]{300,400}$/);
    client.close();
  });

  it("its end ends everything that waits", async () => {
    const client = await hostile((guest) => guest.end());
    await expect(client.stats()).rejects.toMatchObject({ code: "Unavailable" });
    expect(await client.closed).toMatchObject({ code: "Unavailable" });
  });

  it("a program is no longer known once it has ended", async () => {
    const end = say({ id: 1, event: "exit", code: 3, signal: null });
    const client = await hostile((guest) => {
      guest.write(Buffer.concat([started, output(1, "hi"), end]));
      guest.write(output(1, "late"));
    });
    expect(await client.exec(REQUEST)).toMatchObject({ code: 3, stdout: Buffer.from("hi") });
    expect(await client.closed).toMatchObject({ code: "Unavailable" });
  });
});
