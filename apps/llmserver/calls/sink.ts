import type { ApiError } from "../api-error.ts";

/** One event of a stream, whatever carries it: a named server-sent event or a message of a WebSocket. */
export interface Frame {
  event?: string;
  data: string;
}

/** Where a stream goes. */
export interface Sink {
  /** Something was sent: from here on errors travel in the stream. */
  readonly begun: boolean;
  /** The reader has left. */
  readonly gone: boolean;
  /** Resolves when the reader can take more; at once when it is gone. */
  send(frames: readonly Frame[]): Promise<void>;
  /** Nothing more comes; with what went wrong, which has been told in the stream's own words. */
  end(failure?: ApiError): void;
  /** Call `listener` when the reader leaves before the answer's end (at once when it already has). */
  onGone(listener: () => void): Disposable;
}
