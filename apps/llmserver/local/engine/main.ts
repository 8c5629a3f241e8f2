/**
 * The process of one loaded model, forked by the studio: `start-engine.ts` is its other side. A model that crashes takes
 * nobody along, and one that is unloaded gives all of its memory back.
 */
import { writeFileSync } from "node:fs";
import { setPriority } from "node:os";
import type { Loaded } from "./loaded.ts";
import { checkBounds } from "./metadata-bounds.ts";
import type { FromEngine, RefusedFields, ToEngine } from "./protocol.ts";
import { LoadRefusal, Refusal } from "./refusal.ts";

/** Inference yields to the studio's own work when both want the processor. */
const NICENESS = 5;
/** When memory runs out, a model goes before the studio does. */
const OOM_SCORE = "500";

/** A model has nothing to save: it ends on the spot, in the middle of a computation too. */
function end(): void {
  process.kill(process.pid, "SIGKILL");
}

function send(message: FromEngine): void {
  // Nobody is there to read it: `disconnect` ends this process.
  if (process.connected) process.send?.(message, () => undefined);
}

/** Read only for a file worth it: the library takes most of a second. */
async function readWork() {
  const [{ load }, { count, generate }, { embed }] = await Promise.all([
    import("./load.ts"),
    import("./engine.ts"),
    import("./embed.ts"),
  ]);
  return { load, count, generate, embed };
}

type Work = Awaited<ReturnType<typeof readWork>>;

/** A model and what can be done with it. */
interface Ready {
  loaded: Loaded;
  work: Work;
}

class Requests {
  readonly #running = new Map<number, AbortController>();
  #ready: Ready | undefined;
  #admitted: (() => void) | undefined;

  async take(message: ToEngine): Promise<void> {
    switch (message.type) {
      case "load":
        return this.#load(message);
      case "admitted":
        return this.#admitted?.();
      case "ping":
        return send({ type: "pong", beat: message.beat });
      case "cancel":
        return this.#running.get(message.id)?.abort(new Error("Cancelled."));
      case "count":
        return this.#serve(message.id, async ({ loaded, work }) => {
          send({ type: "counted", id: message.id, tokens: await work.count(loaded, message.request) });
        });
      case "generate":
        return this.#serve(message.id, async ({ loaded, work }, signal) => {
          await work.generate(loaded, message.request, signal, (batch) => {
            send({ type: "batch", id: message.id, batch });
          });
          send({ type: "done", id: message.id });
        });
      case "embed":
        return this.#serve(message.id, async ({ loaded, work }, signal) => {
          const { vectors, input_tokens } = await work.embed(loaded, message.inputs, signal);
          send({ type: "embedded", id: message.id, vectors: vectors.map(base64Of), input_tokens });
        });
    }
  }

  async #load({ path, options, limits }: Extract<ToEngine, { type: "load" }>): Promise<void> {
    try {
      await checkBounds(path);
      const work = await readWork();
      const loaded = await work.load(path, options, limits, {
        write: (line) => process.stderr.write(`${line}\n`),
        admit: (estimate) =>
          new Promise((resolve) => {
            this.#admitted = resolve;
            send({ type: "estimate", estimate });
          }),
      });
      this.#ready = { loaded, work };
      // Not before: somebody waits for it to be loaded.
      bestEffort(() => setPriority(NICENESS));
      send({ type: "loaded", info: loaded.info });
    } catch (error) {
      const { code, message } =
        error instanceof LoadRefusal ? error : new LoadRefusal("EngineCrashed", String(error));
      process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
      send({ type: "failed", code, message });
    }
  }

  async #serve(id: number, work: (ready: Ready, signal: AbortSignal) => Promise<void>): Promise<void> {
    const controller = new AbortController();
    this.#running.set(id, controller);
    try {
      if (this.#ready === undefined) throw new Error("Nothing is loaded.");
      await work(this.#ready, controller.signal);
    } catch (error) {
      if (controller.signal.aborted) send({ type: "done", id });
      else send({ type: "refused", id, error: refusedFields(error) });
    } finally {
      this.#running.delete(id);
    }
  }
}

function refusedFields(error: unknown): RefusedFields {
  if (error instanceof Refusal) return error.fields;
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  return { status: 500, message: "The engine failed at this request.", code: "engine_error" };
}

function base64Of(vector: Float32Array): string {
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString("base64");
}

/** What a machine does not let us do is left. */
function bestEffort(work: () => void): void {
  try {
    work();
  } catch {
    // The model runs as well without it.
  }
}

bestEffort(() => writeFileSync("/proc/self/oom_score_adj", OOM_SCORE));
process.on("disconnect", end);
process.on("SIGTERM", end);
// Ctrl+C reaches the whole terminal; the studio ends its models in its own order.
process.on("SIGINT", () => undefined);
const requests = new Requests();
process.on("message", (message) => void requests.take(message as ToEngine));
