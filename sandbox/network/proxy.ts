import { chmod, chown, rm } from "node:fs/promises";
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from "node:http";
import type { Socket } from "node:net";
import type { SandboxLog } from "../types.ts";
import type { Reach } from "./addresses.ts";
import { dial } from "./dial.ts";
import { forward, parseTarget } from "./forward.ts";
import { Meter, NETWORK_LIMITS, type NetworkLimits, type RefusalReason } from "./limits.ts";
import { Gone, Refusal } from "./refusal.ts";
import { type Resolver, systemResolver } from "./resolver.ts";
import { type Authority, allows, type HostRule, parseAuthority } from "./rules.ts";
import { tunnel } from "./tunnel.ts";

/** Different refusals that are reported; the others are counted. */
const MAX_REPORTS = 200;
const CHECK_HEADS_MS = 5_000;

export interface ProxyOptions {
  /** A free path, where nobody but the run can get at it. */
  socketPath: string;
  /** Who may connect besides us; null: the sandbox runs as our own user. */
  owner: { readonly uid: number; readonly gid: number } | null;
  rules: readonly HostRule[];
  /** How far names may lead; without it to public addresses only. */
  reach?: Reach;
  /** What differs from NETWORK_LIMITS. */
  limits?: Partial<NetworkLimits>;
  /** Without it the machine's names. */
  resolver?: Resolver;
  /** Called once for each host, port and reason, for the first 200. Port 0 and no host: what was asked for is not known. */
  onRefused?: (host: string, port: number, reason: RefusalReason) => void;
  log: SandboxLog;
}

export interface NetworkStats {
  /** Made to hosts so far. */
  connections: number;
  /** From hosts into the sandbox. */
  bytesIn: number;
  /** From the sandbox to hosts. */
  bytesOut: number;
  /** Requests that were not served, or broken off, for whatever reason. */
  refused: number;
}

/**
 * One run's way to the network: a proxy for HTTP (`CONNECT host:port`, `GET http://host/path`) behind a unix socket
 * that only the run can reach, so the socket says who asks. Leads to the run's hosts and nowhere else. What is said
 * inside a tunnel is between the program and the host: neither the name in TLS nor a Host header there is looked at,
 * for the address dialled was decided before.
 */
export class NetworkProxy implements AsyncDisposable {
  readonly #options: ProxyOptions;
  readonly #limits: NetworkLimits;
  readonly #meter: Meter;
  readonly #resolver: Resolver;
  readonly #server: Server;
  readonly #closing = new AbortController();
  readonly #sockets = new Set<Socket>();
  /** Connections that carried a request: each carries one, so nothing can hide behind it. */
  readonly #used = new WeakSet<Socket>();
  readonly #reported = new Set<string>();
  #connections = 0;
  #refused = 0;
  #closed: Promise<void> | undefined;

  private constructor(options: ProxyOptions) {
    this.#options = options;
    this.#limits = { ...NETWORK_LIMITS, ...options.limits };
    this.#meter = new Meter(this.#limits);
    this.#resolver = options.resolver ?? systemResolver();
    this.#server = createServer({
      maxHeaderSize: this.#limits.headerBytes,
      headersTimeout: this.#limits.connectMs,
      requestTimeout: 0,
      connectionsCheckingInterval: Math.min(CHECK_HEADS_MS, this.#limits.connectMs),
      insecureHTTPParser: false,
    });
    this.#server.maxConnections = this.#limits.connections;
    this.#listenTo(this.#server);
  }

  /** Listen. Throws the system's error when the socket cannot be made. */
  static async open(options: ProxyOptions): Promise<NetworkProxy> {
    const proxy = new NetworkProxy(options);
    const { socketPath, owner } = options;
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once("error", reject);
      proxy.#server.listen(socketPath, resolve);
    });
    try {
      await chmod(socketPath, 0o600);
      if (owner !== null) await chown(socketPath, owner.uid, owner.gid);
    } catch (error) {
      await proxy.close();
      throw error;
    }
    return proxy;
  }

  get socketPath(): string {
    return this.#options.socketPath;
  }

  stats(): NetworkStats {
    const { in: bytesIn, out: bytesOut } = this.#meter;
    return { connections: this.#connections, bytesIn, bytesOut, refused: this.#refused };
  }

  /** End every connection at once, and remove the socket. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#closing.abort();
    this.#resolver.cancel();
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    await rm(this.socketPath, { force: true });
  }

  #listenTo(server: Server): void {
    server.on("connection", (socket) => this.#own(socket));
    server.on("request", (incoming, response) => void this.#serve(incoming, response));
    server.on("connect", (incoming, socket, head) => void this.#connect(incoming, socket as Socket, head));
    server.on("drop", () => this.#report(new Refusal("connections")));
    server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
      const known = error.code?.startsWith("HPE_") === true || error.code === "ERR_HTTP_REQUEST_TIMEOUT";
      if (known) this.#report(new Refusal("malformed"));
      if (known && !this.#used.has(socket as Socket)) answerRaw(socket as Socket, new Refusal("malformed"));
      else socket.destroy();
    });
  }

  #own(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    if (this.#closing.signal.aborted) socket.destroy();
  }

  async #connect(incoming: IncomingMessage, client: Socket, head: Buffer): Promise<void> {
    // The server's own listeners are gone with the request: a broken connection must not end the process.
    client.on("error", () => client.destroy());
    const { headers } = incoming;
    const framed = headers["content-length"] !== undefined || headers["transfer-encoding"] !== undefined;
    const target = framed ? undefined : parseAuthority(incoming.url ?? "");
    try {
      const upstream = await this.#open(incoming, target);
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      const onExhausted = () => this.#report(new Refusal("bytes", target?.host, target?.port));
      tunnel({ client, upstream, head, meter: this.#meter, idleMs: this.#limits.idleMs, onExhausted });
    } catch (error) {
      this.#refuse(error, client, (refusal) => answerRaw(client, refusal));
    }
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const target = parseTarget(incoming.url ?? "");
    const encoding = incoming.headers["transfer-encoding"];
    const known = encoding === undefined || encoding.toLowerCase() === "chunked";
    try {
      const upstream = await this.#open(incoming, known ? target : undefined);
      if (target === undefined) return;
      await forward({ incoming, response, target, upstream, meter: this.#meter, limits: this.#limits });
    } catch (error) {
      this.#refuse(error, incoming.socket, (refusal) => answer(response, refusal));
    }
  }

  /** A connection to what a request asks for. Throws Refusal, or Gone. */
  async #open(incoming: IncomingMessage, target: Authority | undefined): Promise<Socket> {
    const { socket: client, httpVersion } = incoming;
    const again = this.#used.has(client);
    this.#used.add(client);
    if (again) client.destroy();
    if (again || target === undefined || !["1.0", "1.1"].includes(httpVersion))
      throw new Refusal("malformed");
    const { host, port } = target;
    if (!this.#meter.takeRequest()) throw new Refusal("requests", host, port);
    if (!allows(this.#options.rules, host, port)) throw new Refusal("host", host, port);
    if (this.#meter.exhausted) throw new Refusal("bytes", host, port);
    const gone = new AbortController();
    const onClose = () => gone.abort();
    client.once("close", onClose);
    const signal = AbortSignal.any([gone.signal, this.#closing.signal]);
    const { connectMs } = this.#limits;
    const reach = this.#options.reach ?? "public";
    try {
      const upstream = await dial(host, port, { resolver: this.#resolver, reach, connectMs, signal });
      if (signal.aborted) upstream.destroy();
      signal.throwIfAborted();
      this.#connections += 1;
      this.#own(upstream);
      return upstream;
    } catch (error) {
      throw signal.aborted ? new Gone() : error;
    } finally {
      client.off("close", onClose);
    }
  }

  /** Tell the program inside. */
  #refuse(error: unknown, client: Socket, tell: (refusal: Refusal) => void): void {
    if (error instanceof Refusal) {
      this.#report(error);
      tell(error);
    } else {
      client.destroy();
      if (!(error instanceof Gone)) {
        this.#options.log.error({ err: error }, "a sandbox's request failed in the proxy");
      }
    }
  }

  #report({ host, port, reason }: Refusal): void {
    this.#refused += 1;
    const key = `${reason} ${port} ${host}`;
    if (this.#reported.size >= MAX_REPORTS || this.#reported.has(key)) return;
    this.#reported.add(key);
    this.#options.log.info({ host, port, reason }, "a sandbox did not get through to a host");
    try {
      this.#options.onRefused?.(host, port, reason);
    } catch (error) {
      this.#options.log.error({ err: error }, "a refused host could not be reported");
    }
  }
}

function answer(response: ServerResponse, refusal: Refusal): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const body = Buffer.from(refusal.text);
  response.writeHead(refusal.status, {
    "content-type": "text/plain; charset=utf-8",
    "content-length": body.length,
    connection: "close",
  });
  response.end(body);
}

/** The same where there is no response: before a tunnel, or after what was no request. */
function answerRaw(client: Socket, { status, text }: Refusal): void {
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    "Content-Type: text/plain; charset=utf-8",
    `Content-Length: ${Buffer.byteLength(text)}`,
    "Connection: close",
  ];
  if (client.writable) client.write(`${head.join("\r\n")}\r\n\r\n${text}`);
  client.destroySoon();
}
