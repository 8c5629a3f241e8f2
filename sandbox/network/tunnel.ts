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
  const pass = (from: Socket, to: Socket, direction: Direction) => {
    const onData = (chunk: Buffer) => {
      if (!meter.take(direction, chunk.length)) {
        stop();
        onExhausted();
      } else if (!to.write(chunk)) from.pause();
    };
    from.on("data", onData);
    from.on("end", () => to.end());
    to.on("drain", () => from.resume());
    return onData;
  };
  for (const socket of [client, upstream]) {
    // Either side's clock sees both directions: what is read from one is written to the other.
    socket.setTimeout(idleMs, stop);
    socket.on("error", stop);
  }
  client.on("close", () => upstream.destroy());
  // Its last bytes may still be on their way to a client that reads slowly.
  upstream.on("close", (broken) => (broken ? client.destroy() : client.destroySoon()));
  const toUpstream = pass(client, upstream, "out");
  if (head.length > 0) toUpstream(head);
  pass(upstream, client, "in");
}
