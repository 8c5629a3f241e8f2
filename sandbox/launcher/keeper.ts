/**
 * Keeps the terminals: opens each pair of ends, and carries bytes between the server and the end that is not the
 * program's. A process of its own, which starts no other: the package for terminals opens that end so that every
 * child would inherit it, and with it somebody's terminal.
 */
import { chmodSync, chownSync, closeSync, writeSync } from "node:fs";
import type { Socket } from "node:net";
import { Writable } from "node:stream";
import { ReadStream } from "node:tty";
import { requireBinary } from "@lydell/node-pty/requireBinary.js";
import type { TerminalSize } from "../types.ts";
import type { FromKeeper, ToKeeper } from "./protocol.ts";
import { type Hello, openStream } from "./streams.ts";

/** Between two looks whether a program has taken some of what was typed. */
const ROOM_WAIT_MS = 10;

interface Kept {
  master: number;
  /** Our hold on the program's end, until the program has it; without any, reading ours fails. */
  slave: number | undefined;
  terminal: ReadStream;
  socket: Socket;
}

const kept = new Map<number, Kept>();
let hello: Hello | undefined;

function tell(message: FromKeeper): void {
  if (process.connected) process.send?.(message, () => undefined);
}

function letGo(id: number): void {
  const one = kept.get(id);
  if (one?.slave === undefined) return;
  closeSync(one.slave);
  one.slave = undefined;
}

/**
 * Where what is typed goes. Node's own stream for it would try without pause, and do nothing else, until the program
 * reads; the kernel tells nobody when there is room again, so we look.
 */
function typing(master: number, terminal: ReadStream): Writable {
  /** How much of it there was room for; of what nobody will ever read, all. */
  const put = (data: Buffer): number => {
    if (terminal.destroyed) return data.length;
    try {
      return writeSync(master, data);
    } catch (error) {
      return error instanceof Error && "code" in error && error.code === "EAGAIN" ? 0 : data.length;
    }
  };
  const write = (data: Buffer, done: () => void): void => {
    const written = put(data);
    if (written === data.length) done();
    else setTimeout(write, ROOM_WAIT_MS, data.subarray(written), done);
  };
  return new Writable({ decodeStrings: true, write: (data: Buffer, _encoding, done) => write(data, done) });
}

/** Both ways, each only as fast as its reader; the end of either is the end of both. */
function join(id: number, { master, terminal, socket }: Kept): void {
  // The last program to close its end shows as an error here, after all that it wrote.
  terminal.on("error", () => socket.end());
  terminal.pipe(socket);
  socket.pipe(typing(master, terminal));
  socket.on("error", () => undefined);
  socket.once("close", () => {
    letGo(id);
    terminal.destroy();
  });
  terminal.once("close", () => {
    socket.end();
    kept.delete(id);
  });
}

async function open({ id, size, uid, gid }: Extract<ToKeeper, { type: "open" }>): Promise<string> {
  if (hello === undefined) throw new Error("open before hello");
  const binding = requireBinary("pty.node");
  const socket = await openStream(hello, id, 0);
  const { master, slave, pty } = binding.open(size.cols, size.rows);
  const one: Kept = { master, slave, socket, terminal: new ReadStream(master) };
  kept.set(id, one);
  join(id, one);
  if (uid !== null && gid !== null) chownSync(pty, uid, gid);
  chmodSync(pty, 0o600);
  return pty;
}

function resize(id: number, { cols, rows }: TerminalSize): void {
  const one = kept.get(id);
  if (one === undefined) return;
  const binding = requireBinary("pty.node");
  binding.resize(one.master, cols, rows);
}

async function answer(message: Extract<ToKeeper, { type: "open" }>): Promise<void> {
  try {
    tell({ type: "opened", id: message.id, path: await open(message) });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    tell({ type: "failed", id: message.id, message: text.split("\n")[0] ?? "" });
  }
}

for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => undefined);
process.on("disconnect", () => process.exit(0));
process.on("message", (message: ToKeeper) => {
  if (message.type === "hello") hello = message;
  else if (message.type === "open") void answer(message);
  else if (message.type === "resize") resize(message.id, message.size);
  else if (message.type === "held") letGo(message.id);
  else kept.get(message.id)?.socket.destroy();
});
