import { Socket } from "node:net";
import { streamHeader } from "./protocol.ts";

/** Where the server takes streams, and the word by which it knows ours. */
export interface Hello {
  socket: string;
  secret: string;
}

/** A connection to the server, introduced and otherwise untouched: not a byte of it has been read. */
export function openStream({ socket: path, secret }: Hello, id: number, fd: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = new Socket({ allowHalfOpen: true });
    // Otherwise Node reads at once, and takes input that is the program's.
    socket.pause();
    socket.once("error", reject);
    socket.connect(path, () => {
      socket.write(streamHeader(secret, id, fd), (error) => (error ? reject(error) : resolve(socket)));
    });
  });
}
