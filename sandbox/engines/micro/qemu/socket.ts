import { chmod, chown, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { AppError } from "#schemas";
import type { Slot } from "../../../slots.ts";

/**
 * Where a slot's QEMU connects to. The server listens and never connects: a path that a guest's QEMU could have
 * replaced is never opened. Connections that nobody waits for are closed.
 */
export class SlotSocket {
  readonly path: string;
  readonly #server: Server;
  #waiting: ((socket: Socket) => void) | undefined;

  private constructor(path: string) {
    this.path = path;
    this.#server = createServer({ pauseOnConnect: true }, (socket) => {
      socket.on("error", () => undefined);
      const waiting = this.#waiting;
      this.#waiting = undefined;
      if (waiting === undefined) socket.destroy();
      else waiting(socket);
    });
    this.#server.on("error", () => undefined);
  }

  /** Listens at the slot's path, for the slot's user alone. */
  static async listen(slot: Slot): Promise<SlotSocket> {
    const socket = new SlotSocket(slot.socketPath);
    const listening = Promise.withResolvers<void>();
    socket.#server.once("error", listening.reject);
    socket.#server.listen(slot.socketPath, listening.resolve);
    await listening.promise;
    if (slot.uid !== null && slot.gid !== null) await chown(slot.socketPath, slot.uid, slot.gid);
    await chmod(slot.socketPath, 0o600);
    return socket;
  }

  /** The next connection; one at a time is waited for. Throws AppError Timeout, or Unavailable when `signal` aborts. */
  next(ms: number, signal: AbortSignal): Promise<Socket> {
    const { promise, resolve, reject } = Promise.withResolvers<Socket>();
    const stop = (error: AppError) => {
      this.#waiting = undefined;
      reject(error);
    };
    const onAbort = () => stop(new AppError("Unavailable", "The virtual machine ended before it connected."));
    const timer = setTimeout(
      () => stop(new AppError("Timeout", `The virtual machine did not connect in ${ms} ms.`)),
      ms,
    );
    signal.addEventListener("abort", onAbort, { once: true });
    this.#waiting = resolve;
    if (signal.aborted) onAbort();
    return promise.finally(() => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    });
  }

  async close(): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.path, { force: true });
  }
}
