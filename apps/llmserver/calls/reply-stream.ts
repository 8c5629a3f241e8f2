import type { ServerResponse } from "node:http";
import type { FastifyReply } from "fastify";
import type { Frame, Sink } from "./sink.ts";

/** Writes server-sent events to one client, no faster than it reads. */
export class ReplyStream implements Sink {
  readonly #reply: FastifyReply;
  readonly #raw: ServerResponse;
  readonly #stallMs: number;
  #begun = false;

  /** `stallMs`: a client that takes nothing for so long is cut off. */
  constructor(reply: FastifyReply, stallMs: number) {
    this.#reply = reply;
    this.#raw = reply.raw;
    this.#stallMs = stallMs;
  }

  get begun(): boolean {
    return this.#begun;
  }

  get gone(): boolean {
    return this.#raw.destroyed || this.#raw.writableEnded;
  }

  async send(frames: readonly Frame[]): Promise<void> {
    if (frames.length === 0 || this.gone) return;
    if (!this.#begun) this.#begin();
    let text = "";
    for (const { event, data } of frames) {
      text += event === undefined ? `data: ${data}\n\n` : `event: ${event}\ndata: ${data}\n\n`;
    }
    if (!this.#raw.write(text)) await this.#drained();
  }

  end(): void {
    if (!this.gone) this.#raw.end();
  }

  onGone(listener: () => void): Disposable {
    const raw = this.#raw;
    const onClose = () => {
      if (!raw.writableFinished) listener();
    };
    raw.on("close", onClose);
    if (raw.destroyed) onClose();
    return { [Symbol.dispose]: () => void raw.off("close", onClose) };
  }

  #begin(): void {
    this.#begun = true;
    this.#reply.hijack();
    // Headers set by hooks (CORS, request id) live in the reply and would be lost otherwise.
    for (const [name, value] of Object.entries(this.#reply.getHeaders())) {
      if (value !== undefined) this.#raw.setHeader(name, value);
    }
    this.#raw.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-store",
      // Proxies in front must not collect what is meant to be seen at once.
      "x-accel-buffering": "no",
    });
  }

  #drained(): Promise<void> {
    const raw = this.#raw;
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        raw.off("drain", done);
        raw.off("close", done);
        resolve();
      };
      const timer = setTimeout(() => raw.destroy(), this.#stallMs);
      raw.on("drain", done);
      raw.on("close", done);
      if (raw.destroyed) done();
    });
  }
}
