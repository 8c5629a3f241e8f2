import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Config } from "#platform/config/config.ts";
import { readConfig } from "#platform/config/config.ts";

/** What the hub does wrong; changed while it runs, too. */
export interface HubFaults {
  /** Cut a file's connection after so many bytes, so many times. */
  drop?: { after: number; times: number };
  /** End an answer in order after so many bytes, as if that were all. */
  truncate?: { after: number };
  /** Send so many bytes of a file, then nothing more. */
  hold?: { after: number };
  /** Send a file in small pieces, this long apart. */
  trickle?: { bytes: number; everyMs: number };
  /** Answer with a status instead, so many times. */
  status?: { of: "api" | "file"; code: number; times: number; retryAfter?: string };
  /** Never answer questions. */
  silent?: boolean;
  /** Change one bit of every file sent. */
  corrupt?: boolean;
  range?: "ignored" | "shifted" | "unnamed" | "of another size" | "unsatisfiable";
  /** A web page instead of files, or of answers to questions. */
  page?: "file" | "api";
  contentEncoding?: string;
  /** Send so many bytes more than the file has. */
  surplus?: number;
  /** Where `resolve` leads, instead of to the file; "endless" leads to itself. */
  redirect?: string;
  /** What `resolve` says the file's sha256 is. */
  linkedOid?: string;
  /** What is told of a file, instead of the truth. */
  info?: (truth: Record<string, unknown>) => unknown;
}

interface HubRequestSeen {
  method: string;
  /** Without the query. */
  path: string;
  range: string | undefined;
  authorization: string | undefined;
}

export interface TestHub extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly faults: HubFaults;
  readonly requests: HubRequestSeen[];
  /** The ranges files were asked for with, in order. */
  ranges(): (string | undefined)[];
  /** A file's own address, which `resolve` redirects to. */
  blob(path: string): string;
  /** The configuration of a server that is set to this hub. */
  config(env?: Record<string, string>): Config["hub"];
}

interface Blob {
  data: Buffer;
  oid: string;
}

interface State {
  files: Map<string, Blob>;
  faults: HubFaults;
  requests: HubRequestSeen[];
  pageSize: number;
}

/** A hub of one repository, `acme/tiny`, on a free loopback port: the interface of huggingface.co, with faults. */
export async function startHub(
  files: Record<string, Buffer>,
  faults: HubFaults = {},
  { pageSize = 1000 } = {},
): Promise<TestHub> {
  const blobs = Object.entries(files).map(([path, data]) => [path, { data, oid: sha256(data) }] as const);
  const state: State = { files: new Map(blobs), faults, requests: [], pageSize };
  const server = createServer((request, response) => {
    serve(request, response, state).catch(() => response.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  return {
    url,
    port,
    faults,
    requests: state.requests,
    ranges: () => state.requests.filter(({ path }) => path.startsWith("/cdn/")).map(({ range }) => range),
    blob: (path) => `${url}/cdn/${state.files.get(path)?.oid}`,
    config: (env = {}) => readConfig({ HF_ENDPOINT: url, ...env }).hub,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export function sha256(data: Buffer): string {
  return createHash("sha256").update(data).digest("hex");
}

/** Bytes that begin as a GGUF file does; the rest is the same for the same seed, and no model. */
export function ggufBytes(size: number, seed = 1): Buffer {
  const data = Buffer.alloc(size);
  let state = seed;
  for (let at = 0; at < size; at += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    data[at] = state >>> 24;
  }
  data.write("GGUF", 0, "latin1");
  data.writeUInt32LE(3, 4);
  data.writeBigUInt64LE(2n, 8);
  data.writeBigUInt64LE(3n, 16);
  return data;
}

async function serve(request: IncomingMessage, response: ServerResponse, state: State): Promise<void> {
  const { pathname, searchParams } = new URL(request.url ?? "", "http://hub");
  const { range, authorization } = request.headers;
  state.requests.push({ method: request.method ?? "", path: pathname, range, authorization });
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const { faults } = state;
  const kind = pathname.startsWith("/api/") ? "api" : "file";
  const { status } = faults;
  if (status !== undefined && status.of === kind && status.times > 0) {
    status.times -= 1;
    const headers = status.retryAfter === undefined ? {} : { "retry-after": status.retryAfter };
    response.writeHead(status.code, headers).end("no");
    return;
  }
  if (faults.page === kind) {
    response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>Sign in</title>");
    return;
  }
  if (kind === "api") answerQuestion(pathname, searchParams, Buffer.concat(chunks), response, state);
  else if (pathname.startsWith("/cdn/")) await sendFile(pathname.slice(5), range, response, state);
  else redirect(pathname, response, state);
}

function answerQuestion(
  pathname: string,
  query: URLSearchParams,
  body: Buffer,
  response: ServerResponse,
  { files, faults, pageSize }: State,
): void {
  if (faults.silent === true) return;
  const [, question] = /^\/api\/models\/acme\/tiny\/(paths-info|tree)\/[^/]+$/.exec(pathname) ?? [];
  const all = [...files].map(([path, { data, oid }]) => ({
    type: "file",
    path,
    size: data.length,
    oid: "b".repeat(40),
    lfs: { oid, size: data.length, pointerSize: 134 },
  }));
  response.setHeader("content-type", "application/json");
  if (question === "paths-info") {
    const { paths } = JSON.parse(body.toString());
    const asked = all.filter(({ path }) => paths.includes(path));
    response.end(JSON.stringify(asked.map((truth) => faults.info?.(truth) ?? truth)));
  } else if (question === "tree") {
    const from = Number(query.get("cursor") ?? 0);
    const next = `${pathname}?recursive=true&cursor=${from + pageSize}`;
    if (from + pageSize < all.length) response.setHeader("link", `<${next}>; rel="next"`);
    response.end(
      JSON.stringify([{ type: "directory", path: "folder" }, ...all.slice(from, from + pageSize)]),
    );
  } else {
    response.writeHead(404).end('{"error":"Repository not found"}');
  }
}

function redirect(pathname: string, response: ServerResponse, { files, faults }: State): void {
  const [, path] = /^\/acme\/tiny\/resolve\/[^/]+\/(.+)$/.exec(pathname) ?? [];
  const blob = files.get(decodeURIComponent(path ?? ""));
  if (blob === undefined) {
    response.writeHead(404, { "x-error-code": "EntryNotFound" }).end("Entry not found");
    return;
  }
  const location = faults.redirect === "endless" ? pathname : (faults.redirect ?? `/cdn/${blob.oid}`);
  const etag = `"${faults.linkedOid ?? blob.oid}"`;
  response.writeHead(302, { location, "x-linked-etag": etag, "x-linked-size": blob.data.length }).end();
}

async function sendFile(
  oid: string,
  range: string | undefined,
  response: ServerResponse,
  { files, faults }: State,
): Promise<void> {
  const blob = [...files.values()].find((item) => item.oid === oid);
  if (blob === undefined || faults.range === "unsatisfiable") {
    response.writeHead(blob === undefined ? 404 : 416).end();
    return;
  }
  const data = Buffer.concat([blob.data, Buffer.alloc(faults.surplus ?? 0)]);
  if (faults.corrupt === true) data[data.length >> 1] = (data[data.length >> 1] ?? 0) ^ 1;
  const asked = faults.range === "ignored" ? undefined : /^bytes=(\d+)-$/.exec(range ?? "")?.[1];
  const from = Number(asked ?? 0) + (faults.range === "shifted" ? 1 : 0);
  const piece = data.subarray(from, faults.truncate === undefined ? undefined : from + faults.truncate.after);
  const total = data.length - (faults.surplus ?? 0) + (faults.range === "of another size" ? 7 : 0);
  const named = asked !== undefined && faults.range !== "unnamed";
  const last = Math.min(from + piece.length, blob.data.length) - 1;
  response.writeHead(asked === undefined ? 200 : 206, {
    "content-type": "application/octet-stream",
    ...(faults.contentEncoding === undefined ? {} : { "content-encoding": faults.contentEncoding }),
    ...(named ? { "content-range": `bytes ${from}-${last}/${total}` } : {}),
    // A surplus is only possible in an answer that does not say how long it is.
    ...(faults.surplus === undefined ? { "content-length": piece.length } : {}),
  });
  await sendBody(piece, response, faults);
}

async function sendBody(piece: Buffer, response: ServerResponse, faults: HubFaults): Promise<void> {
  const { drop, hold, trickle } = faults;
  if (drop !== undefined && drop.times > 0 && piece.length > drop.after) {
    drop.times -= 1;
    await new Promise((done) => response.write(piece.subarray(0, drop.after), done));
    // What is written must leave this machine before the connection ends.
    await sleep(20);
    response.destroy();
  } else if (hold !== undefined) {
    response.write(piece.subarray(0, hold.after));
  } else if (trickle !== undefined) {
    for (let at = 0; at < piece.length && !response.destroyed; at += trickle.bytes) {
      response.write(piece.subarray(at, at + trickle.bytes));
      await sleep(trickle.everyMs);
    }
    response.end();
  } else {
    response.end(piece);
  }
}
