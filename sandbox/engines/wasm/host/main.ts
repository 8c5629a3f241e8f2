/**
 * The module host: a program in a sandbox, one per trust domain. It reads orders from its standard input and runs each
 * module in a thread of its own. Nothing of a module's is looked at in this thread, which stays free to end the others.
 */
import { encodeFrame, FrameReader } from "./frames.ts";
import { Hosted } from "./hosted.ts";
import { ModuleCache } from "./module-cache.ts";
import { type FromHost, failedOutcome, type LoadOrder, type ToHost } from "./protocol.ts";
import { ThreadPool } from "./thread-pool.ts";

/** The server is trusted: these only catch a stream that is none. */
const LIMITS = { headerBytes: 64 * 1024 * 1024, payloadBytes: 128 * 1024 * 1024 };
const LIMIT_MS = 10_000;

const threads = new ThreadPool();
const cache = new ModuleCache();
const instances = new Map<string, Hosted>();
/** Which instance waits for which answer. */
const files = new Map<number, string>();
let requests = 0;

function send(message: FromHost, payload?: Uint8Array): void {
  for (const part of encodeFrame(message, payload)) process.stdout.write(part);
}

function load(order: LoadOrder, payload: Uint8Array): void {
  const bytes = payload.subarray(0, order.moduleBytes);
  const key = ModuleCache.key(bytes);
  const compiled = cache.get(key);
  const { instance } = order;
  const hosted = new Hosted(threads.take(), {
    compiled: (fresh) => cache.add(key, fresh),
    done(id, outcome, output, exports) {
      if (id === order.id) threads.prepare();
      const loaded = exports === undefined ? {} : { loaded: { exports, cached: compiled !== undefined } };
      send({ type: "done", id, outcome, ...loaded }, output);
    },
    file({ operation, path, bytes: content }) {
      requests += 1;
      files.set(requests, instance);
      send({ type: "file", id: requests, instance, operation, path }, content);
    },
    ended: () => instances.delete(instance),
  });
  instances.set(instance, hosted);
  // Copies: what is a part of a larger piece would be sent as that.
  const code = compiled === undefined ? { bytes: bytes.slice() } : { compiled };
  hosted.load(order, code, payload.slice(order.moduleBytes));
}

/** For an order to an instance that has just ended by itself. */
function refuse(id: number): void {
  const error = { code: "Unavailable" as const, message: "The module has ended.", details: {} };
  send({ type: "done", id, outcome: failedOutcome(error) });
}

function obey(order: ToHost, payload: Uint8Array): void {
  if (order.type === "load") {
    load(order, payload);
    return;
  }
  if (order.type === "file") {
    const waiting = files.get(order.id);
    files.delete(order.id);
    instances.get(waiting ?? "")?.answerFile(order.errno, payload.slice());
    return;
  }
  const hosted = instances.get(order.instance);
  if (order.type === "cancel") hosted?.cancel();
  else if (hosted === undefined) refuse(order.id);
  else if (order.type === "call") hosted.call(order);
  else hosted.limit(order.id, order.memoryPages, LIMIT_MS);
}

const reader = new FrameReader(LIMITS);
process.stdin.on("data", (chunk: Buffer) => {
  for (const { header, payload } of reader.push(chunk)) obey(header as unknown as ToHost, payload);
});
process.stdin.on("end", () => process.exit(0));
send({ type: "ready" });
