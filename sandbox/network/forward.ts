import { type ClientRequest, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Direction, Meter, NetworkLimits } from "./limits.ts";
import { Gone, Refusal } from "./refusal.ts";
import { type Authority, describeRule, parseAuthority } from "./rules.ts";

/** RFC 9110, section 7.6.1: for the next hop only. */
const HOP_BY_HOP = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];
/** Written anew: where a request goes and how long it is, we say. */
const OURS = ["content-length", "expect", "host"];
const HTTP_PORT = 80;
const BODYLESS = ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE"];

export interface Target extends Authority {
  /** From the first slash or question mark on. */
  path: string;
}

/** Take an absolute `http` URL apart; undefined for anything else. */
export function parseTarget(url: string): Target | undefined {
  const found = /^http:\/\/([^/?#]*)([/?][^#\s]*)?$/i.exec(url);
  const authority = parseAuthority(found?.[1] ?? "", HTTP_PORT);
  if (authority === undefined) return undefined;
  const rest = found?.[2] ?? "/";
  return { ...authority, path: rest.startsWith("/") ? rest : `/${rest}` };
}

/** Headers as they came, name and value by turns, without those meant for us alone. */
function passedOn(message: IncomingMessage, without: readonly string[]): string[] {
  const named = (message.headers.connection ?? "").split(",").map((name) => name.trim().toLowerCase());
  const dropped = new Set([...HOP_BY_HOP, ...named, ...without]);
  const kept: string[] = [];
  for (let index = 0; index + 1 < message.rawHeaders.length; index += 2) {
    const [name = "", value = ""] = message.rawHeaders.slice(index, index + 2);
    if (!dropped.has(name.toLowerCase())) kept.push(name, value);
  }
  return kept;
}

/** How the next hop learns where the body ends. The parser has refused whatever says so in two ways. */
function framing({ headers, method = "GET" }: IncomingMessage): string[] {
  if (headers["transfer-encoding"] !== undefined) return ["Transfer-Encoding", "chunked"];
  const length = headers["content-length"] ?? (BODYLESS.includes(method) ? undefined : "0");
  return length === undefined ? [] : ["Content-Length", length];
}

const headSize = (headers: readonly string[]) => headers.reduce((sum, text) => sum + text.length + 2, 0);

function counting(meter: Meter, direction: Direction): Transform {
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      if (meter.take(direction, chunk.length)) done(null, chunk);
      else done(new Refusal("bytes"));
    },
  });
}

export interface ForwardInput {
  incoming: IncomingMessage;
  response: ServerResponse;
  target: Target;
  /** Connected to the target. */
  upstream: Socket;
  meter: Meter;
  limits: NetworkLimits;
}

function ask({ incoming, target, upstream, limits }: ForwardInput, headers: string[]): ClientRequest {
  return request({
    createConnection: () => upstream,
    setHost: false,
    method: incoming.method ?? "GET",
    path: target.path,
    headers,
    maxHeaderSize: limits.headerBytes,
  });
}

/** Serve one request over plain HTTP. Throws Refusal, or Gone; the response may have begun by then. */
export async function forward(input: ForwardInput): Promise<void> {
  const { incoming, response, target, upstream, meter, limits } = input;
  const { host, port } = target;
  const name = describeRule({ host, below: false, ports: [] });
  const hostHeader = port === HTTP_PORT ? name : `${name}:${port}`;
  const headers = [
    "Host",
    hostHeader,
    ...passedOn(incoming, OURS),
    ...framing(incoming),
    "Connection",
    "close",
  ];
  if (!meter.take("out", headSize(headers) + target.path.length)) throw new Refusal("bytes", host, port);
  let reason: "unreachable" | "timeout" | "bytes" = "unreachable";
  const stopFor = (why: typeof reason) => {
    reason = why;
    upstream.destroy();
  };
  upstream.setTimeout(limits.idleMs, () => stopFor("timeout"));
  let gone = false;
  response.once("close", () => {
    gone = !upstream.destroyed;
    upstream.destroy();
  });
  try {
    const outgoing = ask(input, headers);
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      outgoing.once("response", resolve);
      outgoing.on("error", reject);
      outgoing.once("close", () => reject(new Error("closed without an answer")));
    });
    // A host may answer, and close, before it has read everything: its answer counts.
    pipeline(incoming, counting(meter, "out"), outgoing).catch((error: unknown) => {
      if (error instanceof Refusal) stopFor("bytes");
    });
    const answer = await answered;
    const answerHeaders = [...passedOn(answer, []), "Connection", "close"];
    if (!meter.take("in", headSize(answerHeaders))) stopFor("bytes");
    response.sendDate = false;
    response.writeHead(answer.statusCode ?? 502, answer.statusMessage, answerHeaders);
    await pipeline(answer, counting(meter, "in"), response);
  } catch (error) {
    if (gone) throw new Gone();
    throw new Refusal(error instanceof Refusal ? error.reason : reason, host, port);
  } finally {
    upstream.destroy();
  }
}
