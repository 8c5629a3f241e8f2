import { mkdtemp, rm } from "node:fs/promises";
import { createServer, connect as netConnect, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NetworkProxy, type ProxyOptions } from "../network/proxy.ts";
import type { Resolver } from "../network/resolver.ts";
import { silent } from "./harness.ts";

/** A server on this machine that notes who comes: whether an attack reached the other side is seen there. */
export interface Listener extends AsyncDisposable {
  readonly port: number;
  /** Open connections. */
  readonly sockets: ReadonlySet<Socket>;
  /** Connections so far. */
  count(): number;
}

export async function listen(
  onSocket: (socket: Socket) => void = () => undefined,
  server: Server = createServer(),
  host = "127.0.0.1",
  port = 0,
): Promise<Listener> {
  const sockets = new Set<Socket>();
  let count = 0;
  server.on("connection", (socket: Socket) => {
    count += 1;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => undefined);
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(port, host, resolve));
  const address = server.address();
  const listener: Listener = {
    port: typeof address === "object" && address !== null ? address.port : 0,
    sockets,
    count: () => count,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
  return listener;
}

/** Names that lead where the test says, one list of addresses after the other; the last one stays. */
export function names(table: Record<string, string[][]>): Resolver & { asked: string[] } {
  const asked: string[] = [];
  return {
    asked,
    async resolve(host) {
      asked.push(host);
      const lists = table[host] ?? [];
      const next = lists.length > 1 ? lists.shift() : lists[0];
      if (next === undefined) throw new Error(`no such name: ${host}`);
      return next;
    },
    cancel: () => undefined,
  };
}

export interface TestProxy extends AsyncDisposable {
  readonly proxy: NetworkProxy;
  /** `host port reason` of each report. */
  readonly refusals: string[];
  connect(): Socket;
  /** Send bytes as they are; all that comes back until the connection ends. */
  ask(bytes: string): Promise<string>;
}

export async function openTestProxy(options: Partial<ProxyOptions>): Promise<TestProxy> {
  const dir = await mkdtemp(join(tmpdir(), "cds-net-"));
  const refusals: string[] = [];
  const proxy = await NetworkProxy.open({
    socketPath: join(dir, "s"),
    owner: null,
    rules: [],
    log: silent,
    onRefused: (host, port, reason) => refusals.push(`${host} ${port} ${reason}`),
    ...options,
  });
  const connect = () =>
    netConnect({ path: proxy.socketPath, allowHalfOpen: true }).on("error", () => undefined);
  return {
    proxy,
    refusals,
    connect,
    async ask(bytes) {
      const socket = connect();
      socket.write(bytes, "latin1");
      return readAll(socket);
    },
    async [Symbol.asyncDispose]() {
      await proxy.close();
      await rm(dir, { recursive: true });
    },
  };
}

/** What a socket says until it ends or breaks. */
export async function readAll(socket: Socket): Promise<string> {
  let received = "";
  socket.setEncoding("latin1").on("data", (chunk: string) => {
    received += chunk;
  });
  if (!socket.readableEnded && !socket.closed) {
    await new Promise((resolve) => socket.once("end", resolve).once("close", resolve));
  }
  socket.destroy();
  return received;
}
