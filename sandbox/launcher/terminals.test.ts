import { once } from "node:events";
import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  statSync,
  writeSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { allProcesses, isRunning, readProcess, treeOf } from "../process-tree.ts";
import { makeTemporary, until } from "../testing/harness.ts";
import { Keeper } from "./keeper-client.ts";
import { HEADER_BYTES, readStreamHeader } from "./protocol.ts";
import type { Hello } from "./streams.ts";
import { Terminals } from "./terminals.ts";

const SIZE = { cols: 80, rows: 24 };
const MIB = 1024 * 1024;

let dir: string;
let server: Server;
let hello: Hello;
const arrived: Socket[] = [];
beforeAll(async () => {
  dir = await makeTemporary();
  hello = { socket: join(dir, "s"), secret: "0".repeat(64) };
  server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => arrived.push(socket));
  server.listen(hello.socket);
  await once(server, "listening");
});
afterEach(() => {
  for (const socket of arrived.splice(0)) socket.destroy();
});
afterAll(async () => {
  server.close();
  await rm(dir, { recursive: true });
});

const request = (id: number) => ({ id, size: SIZE, uid: null, gid: null });
const asProgram = (path: string) => openSync(path, constants.O_RDWR | constants.O_NOCTTY);

/** The server's end of the terminal that was opened last, read past its header. */
async function arrival(): Promise<{
  socket: Socket;
  header: ReturnType<typeof readStreamHeader>;
  text(): string;
}> {
  const socket = await until(() => arrived.at(-1));
  const header: Buffer = await until(() => socket.read(HEADER_BYTES) ?? undefined);
  let text = "";
  socket.on("data", (chunk) => {
    text += chunk;
  });
  socket.resume();
  return { socket, header: readStreamHeader(header.toString("latin1")), text: () => text };
}

function openTerminals(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      return /^\/dev\/(ptmx|pts\/)/.test(path) ? [path] : [];
    } catch {
      return [];
    }
  });
}

describe("terminals", () => {
  it("carry bytes both ways, and end with the program's end", async () => {
    const before = openTerminals();
    const terminals = new Terminals();
    const path = await terminals.open(hello, request(7));
    const { socket, header, text } = await arrival();
    expect(header).toEqual({ secret: hello.secret, id: 7, fd: 0 });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const program = asProgram(path);
    terminals.held(7);
    terminals.held(7);
    writeSync(program, "out\n");
    await until(() => text() === "out\r\n");
    socket.write("in\n");
    await until(() => text() === "out\r\nin\r\n");
    const typed = Buffer.alloc(10);
    expect(typed.toString("utf8", 0, readSync(program, typed))).toBe("in\n");
    terminals.resize(7, { cols: 100, rows: 50 });
    writeSync(program, "last");
    closeSync(program);
    await once(socket, "end");
    expect(text()).toBe("out\r\nin\r\nlast");
    socket.end();
    await until(() => terminals.count === 0);
    terminals.resize(7, SIZE);
    terminals.close(7);
    expect(openTerminals()).toEqual(before);
  });

  it.runIf(process.getuid?.() === 0)("belong to the user of the program", async () => {
    const terminals = new Terminals();
    const path = await terminals.open(hello, { ...request(1), uid: 65_534, gid: 65_534 });
    expect(statSync(path)).toMatchObject({ uid: 65_534, gid: 65_534 });
    terminals.close(1);
    await until(() => terminals.count === 0);
  });

  it("keep their path until the program has opened it, even when the server has gone", async () => {
    const terminals = new Terminals();
    const path = await terminals.open(hello, request(1));
    (await arrival()).socket.destroy();
    const other = await terminals.open(hello, request(2));
    expect(other).not.toBe(path);
    const program = asProgram(path);
    terminals.held(1);
    await until(() => terminals.count === 1);
    closeSync(program);
    terminals.close(2);
    await until(() => terminals.count === 0);
  });

  it("hold what is typed until there is room, and drop it with the program", async () => {
    const terminals = new Terminals();
    const path = await terminals.open(hello, request(1));
    const { socket } = await arrival();
    const program = asProgram(path);
    terminals.held(1);
    for (let piece = 0; piece < 64; piece += 1) socket.write(Buffer.alloc(MIB / 16, "x"));
    await until(() => socket.writableLength > 0 && socket.writableLength < 4 * MIB);
    // Still answering: what waits is looked at now and then, not without pause.
    const second = await terminals.open(hello, request(2));
    expect(second).not.toBe(path);
    closeSync(program);
    terminals.close(2);
    await until(() => terminals.count === 0);
  });

  it("that cannot be opened leave nothing", async () => {
    const terminals = new Terminals();
    await expect(terminals.open({ ...hello, socket: join(dir, "none") }, request(1))).rejects.toThrow(
      /ENOENT/,
    );
    const nobody = { ...request(1), uid: -5, gid: -5 };
    await expect(terminals.open(hello, nobody)).rejects.toThrow(/uid/);
    await until(() => terminals.count === 0);
  });
});

describe("the keeper", () => {
  const keeperPids = () =>
    treeOf(process.pid, allProcesses()).filter(
      ({ pid, ppid }) => ppid === process.pid && pid !== process.pid,
    );

  it("opens terminals in a process of its own, and tells when that has died", async () => {
    const lost: number[][] = [];
    const keeper = new Keeper((ids) => lost.push(ids));
    keeper.held(99);
    const path = await keeper.open(hello, request(1));
    const { socket, text } = await arrival();
    const program = asProgram(path);
    keeper.held(1);
    keeper.resize(1, SIZE);
    writeSync(program, "hello");
    await until(() => text() === "hello");
    const [first] = keeperPids();
    process.kill(first?.pid ?? 0, "SIGKILL");
    await until(() => lost.length === 1);
    expect(lost).toEqual([[1]]);
    closeSync(program);
    socket.destroy();

    await keeper.open(hello, request(2));
    const [second] = keeperPids();
    expect(second?.pid).not.toBe(first?.pid);
    keeper.forget(2);
    keeper.close(2);
    await keeper.open(hello, request(3));
    keeper.close(3);
    const opening = keeper.open(hello, request(4));
    process.kill(second?.pid ?? 0, "SIGKILL");
    await expect(opening).rejects.toThrow("the keeper of terminals ended");
    await until(() => second !== undefined && !isRunning(second));
    expect(readProcess(second?.pid ?? 0)?.state ?? "Z").toBe("Z");
  });

  it("passes on why there is none", async () => {
    const keeper = new Keeper(() => undefined);
    await expect(keeper.open({ ...hello, socket: join(dir, "none") }, request(1))).rejects.toThrow(/ENOENT/);
    for (const { pid } of keeperPids()) process.kill(pid, "SIGKILL");
    await until(() => keeperPids().length === 0);
  });
});
