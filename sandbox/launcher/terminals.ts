import { chmodSync, chownSync, closeSync, writeSync } from "node:fs";
import type { Socket } from "node:net";
import { Writable } from "node:stream";
import { ReadStream } from "node:tty";
import { requireBinary } from "@lydell/node-pty/requireBinary.js";
import type { TerminalSize } from "../types.ts";
import type { TerminalRequest } from "./protocol.ts";
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

/** Pairs of ends: the program's is known by its path, what appears at the other goes to the server. */
export class Terminals {
  readonly #kept = new Map<number, Kept>();

  /** How many there are. */
  get count(): number {
    return this.#kept.size;
  }

  /** Open one; answers the path of the program's end. Throws where the package has no binding for this platform. */
  async open(hello: Hello, { id, size, uid, gid }: TerminalRequest): Promise<string> {
    const binding = requireBinary("pty.node");
    const socket = await openStream(hello, id, 0);
    try {
      const { master, slave, pty } = binding.open(size.cols, size.rows);
      const one: Kept = { master, slave, socket, terminal: new ReadStream(master) };
      this.#kept.set(id, one);
      this.#join(id, one);
      if (uid !== null && gid !== null) chownSync(pty, uid, gid);
      chmodSync(pty, 0o600);
      return pty;
    } catch (error) {
      this.close(id);
      socket.destroy();
      throw error;
    }
  }

  /** The program has opened its end, or never will. */
  held(id: number): void {
    const one = this.#kept.get(id);
    if (one?.slave === undefined) return;
    closeSync(one.slave);
    one.slave = undefined;
    if (one.socket.destroyed) one.terminal.destroy();
  }

  resize(id: number, { cols, rows }: TerminalSize): void {
    const one = this.#kept.get(id);
    if (one !== undefined) requireBinary("pty.node").resize(one.master, cols, rows);
  }

  close(id: number): void {
    this.#kept.get(id)?.socket.destroy();
    this.held(id);
  }

  /** Both ways, each only as fast as its reader; the end of either is the end of both. */
  #join(id: number, one: Kept): void {
    const { master, terminal, socket } = one;
    // The last program to close its end shows as an error here, after all that it wrote.
    terminal.on("error", () => socket.end());
    terminal.pipe(socket);
    socket.pipe(typing(master, terminal));
    socket.on("error", () => undefined);
    // The server writes to it until it has no more use for the terminal.
    socket.once("end", () => socket.destroy());
    socket.once("close", () => {
      // Until its program has opened it, the path must name no other terminal.
      if (one.slave === undefined) terminal.destroy();
    });
    terminal.once("close", () => {
      socket.end();
      this.#kept.delete(id);
    });
  }
}
