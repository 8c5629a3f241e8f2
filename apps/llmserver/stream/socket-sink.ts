import type { WebSocket } from "ws";
import type { ApiError } from "../api-error.ts";
import type { Frame, Sink } from "../calls/sink.ts";

/** Unsent bytes from which on the next event waits. */
const HIGH_WATER = 65_536;

/** One request's way out of a WebSocket: `{"id", "type": "event", "data"}` messages, then `done`. */
export class SocketSink implements Sink {
  readonly #ws: WebSocket;
  readonly #id: string;
  readonly #stallMs: number;
  readonly #listeners = new Set<() => void>();
  #begun = false;
  #left = false;
  #failure: ApiError | undefined;

  /** `stallMs`: a peer that takes nothing for so long is cut off. */
  constructor(ws: WebSocket, id: string, stallMs: number) {
    this.#ws = ws;
    this.#id = JSON.stringify(id);
    this.#stallMs = stallMs;
  }

  get begun(): boolean {
    return this.#begun;
  }

  get gone(): boolean {
    return this.#left || this.#ws.readyState !== this.#ws.OPEN;
  }

  async send(frames: readonly Frame[]): Promise<void> {
    for (const { event, data } of frames) {
      if (this.gone) return;
      // The end is told by `done`, in the same way for every endpoint.
      if (data === "[DONE]") continue;
      this.#begun = true;
      const name = event === undefined ? "" : `"event":${JSON.stringify(event)},`;
      await this.#write(`{"id":${this.#id},"type":"event",${name}"data":${data}}`);
    }
  }

  /** Remembered only: the end is told when the call is charged and nothing can go wrong any more. */
  end(failure?: ApiError): void {
    this.#failure = failure;
  }

  /** Say that the request is over, and how. */
  finish(): void {
    if (this.#ws.readyState !== this.#ws.OPEN) return;
    const error = this.#failure?.envelope().error;
    const how = error === undefined ? `"ok":true` : `"ok":false,"error":${JSON.stringify(error)}`;
    this.#ws.send(`{"id":${this.#id},"type":"done",${how}}`);
  }

  /** The reader wants no more of it. */
  leave(): void {
    if (this.#left) return;
    this.#left = true;
    for (const listener of this.#listeners) listener();
  }

  onGone(listener: () => void): Disposable {
    this.#listeners.add(listener);
    if (this.gone) listener();
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  #write(text: string): Promise<void> | void {
    if (this.#ws.bufferedAmount < HIGH_WATER) {
      this.#ws.send(text);
      return;
    }
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#ws.terminate(), this.#stallMs);
      // Called when the bytes are handed on, and also when the connection breaks.
      this.#ws.send(text, () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
