import type { ServerResponse } from "node:http";
import type { FastifyReply } from "fastify";

/** Writes server-sent events to one client, no faster than it reads. */
export class ReplyStream {
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

  /** The status line is out: from here on errors travel as events. */
  get begun(): boolean {
    return this.#begun;
  }

  get gone(): boolean {
    return this.#raw.destroyed || this.#raw.writableEnded;
  }

  /** Resolves when the client's connection can take more; at once when the client is gone. */
  async write(text: string): Promise<void> {
    if (text === "" || this.gone) return;
    if (!this.#begun) this.#begin();
    if (!this.#raw.write(text)) await this.#drained();
  }

  end(): void {
    if (!this.gone) this.#raw.end();
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
