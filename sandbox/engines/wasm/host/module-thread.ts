/** What the thread of one module does: loads it, then what the main thread asks, one thing at a time. */
import { parentPort } from "node:worker_threads";
import { PAGE_BYTES } from "../meter/limits.ts";
import { compile } from "./compile.ts";
import { ModuleInstance } from "./instance.ts";
import { type FromWorker, failedOutcome, type ToWorker } from "./protocol.ts";
import { describe } from "./traps.ts";

let instance: ModuleInstance | undefined;

function send(message: FromWorker): void {
  parentPort?.postMessage(message);
}

function load(message: Extract<ToWorker, { kind: "load" }>): void {
  const { order, code, stdin, flag, files } = message;
  let compiled = "compiled" in code ? code.compiled : undefined;
  if (compiled === undefined && "bytes" in code) {
    compiled = compile(code.bytes);
    send({ kind: "compiled", compiled });
  }
  if (compiled === undefined) return;
  if (compiled.minPages > order.memoryPages) {
    const [needed, allowed] = [compiled.minPages * PAGE_BYTES, order.memoryPages * PAGE_BYTES];
    const outcome = failedOutcome({
      code: "InvalidParams",
      message: `The module needs ${needed} bytes of memory to begin with; ${allowed} are allowed.`,
      details: { needed, allowed, hint: "Load it with a higher memory limit." },
    });
    send({ kind: "done", id: order.id, outcome, output: new Uint8Array() });
    return;
  }
  instance = new ModuleInstance({ order, compiled, stdin, flag, files, send });
  const { outcome, output } = instance.begin(order.fuel);
  send({ kind: "done", id: order.id, outcome, output, exports: compiled.exports });
}

function limit(held: ModuleInstance, id: number, pages: number): void {
  const { memoryBytes } = held;
  const outcome = { ...failedOutcome(null), memoryBytes, dead: false };
  const allowed = pages * PAGE_BYTES;
  if (memoryBytes > allowed) {
    outcome.error = {
      code: "InvalidParams",
      message: `The module uses ${memoryBytes} bytes of memory already, and memory never shrinks.`,
      details: { used: memoryBytes, allowed, hint: `Set it to ${memoryBytes} bytes or more.` },
    };
  } else held.setMemoryPages(pages);
  send({ kind: "done", id, outcome, output: new Uint8Array() });
}

function handle(message: ToWorker): void {
  if (message.kind === "load") load(message);
  else if (message.kind === "call" && instance !== undefined) {
    send({ kind: "done", id: message.order.id, ...instance.call(message.order) });
  } else if (message.kind === "limit" && instance !== undefined) {
    limit(instance, message.id, message.memoryPages);
  }
}

parentPort?.on("message", (message: ToWorker) => {
  try {
    handle(message);
  } catch (error) {
    const id = message.kind === "limit" ? message.id : message.order.id;
    send({ kind: "done", id, outcome: failedOutcome(describe(error)), output: new Uint8Array() });
  }
});
