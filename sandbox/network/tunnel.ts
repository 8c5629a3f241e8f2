import type { Socket } from "node:net";
import type { Direction, Meter } from "./limits.ts";

export interface TunnelOptions {
  client: Socket;
  upstream: Socket;
  /** What the client sent along with its request. */
  head: Buffer;
  meter: Meter;
  idleMs: number;
  /** The run has used up its bytes. */
  onExhausted: () => void;
}

/**
 * Pass bytes both ways until both sides have ended, or one breaks. What one side does not take, the other is not
 * read for; an end in one direction leaves the other open.
 */
export function tunnel({ client, upstream, head, meter, idleMs, onExhausted }: TunnelOptions): void {
  const stop = () => {
    client.destroy();
    upstream.destroy();
  };
  const exhausted = () => {
    stop();
    onExhausted();
  };
  const pass = (from: Socket, to: Socket, direction: Direction) => {
    from.on("data", (chunk: Buffer) => {
      if (!meter.take(direction, chunk.length)) exhausted();
      else if (!to.write(chunk)) from.pause();
    });
    // A client may have said its last word while the host was being dialled.
    if (from.readableEnded) to.end();
    else from.on("end", () => to.end());
    to.on("drain", () => from.resume());
  };
  for (const socket of [client, upstream]) {
    // Either side's clock sees both directions: what is read from one is written to the other.
    socket.setTimeout(idleMs, stop);
    socket.on("error", stop);
  }
  client.on("close", () => upstream.destroy());
  // Its last bytes may still be on their way to a client that reads slowly.
  upstream.on("close", (broken) => (broken ? client.destroy() : client.destroySoon()));
  if (client.destroyed) stop();
  else if (meter.take("out", head.length)) upstream.write(head);
  else exhausted();
  pass(client, upstream, "out");
  pass(upstream, client, "in");
}
