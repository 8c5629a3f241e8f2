import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { TerminalSize } from "../types.ts";
import { type FromKeeper, NODE_FLAGS, type TerminalRequest, type ToKeeper } from "./protocol.ts";
import type { Hello } from "./streams.ts";

const OPEN_MS = 10_000;

/** The launcher's end of the keeper of terminals, which is started with the first of them. */
export class Keeper {
  readonly #onLost: (ids: number[]) => void;
  readonly #open = new Map<number, PromiseWithResolvers<string>>();
  #child: ChildProcess | undefined;

  /** `onLost` is told whose terminals are gone when the keeper died. */
  constructor(onLost: (ids: number[]) => void) {
    this.#onLost = onLost;
  }

  /** Open a terminal; answers the path of the program's end, which stays open here until `held`. */
  async open(hello: Hello, request: TerminalRequest): Promise<string> {
    this.#child ??= this.#start(hello);
    const opened = Promise.withResolvers<string>();
    this.#open.set(request.id, opened);
    const timer = setTimeout(() => opened.reject(new Error("no terminal was opened in time")), OPEN_MS);
    try {
      this.#send({ type: "open", request });
      return await opened.promise;
    } catch (error) {
      this.close(request.id);
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The program has its end, or will never have it. */
  held(id: number): void {
    this.#send({ type: "held", id });
  }

  resize(id: number, size: TerminalSize): void {
    this.#send({ type: "resize", id, size });
  }

  /** Its program is gone: what it wrote last is still on its way to the server. */
  forget(id: number): void {
    this.#open.delete(id);
  }

  /** Its program will never be. */
  close(id: number): void {
    if (this.#open.delete(id)) this.#send({ type: "close", id });
  }

  #start(hello: Hello): ChildProcess {
    const main = fileURLToPath(new URL("./keeper.ts", import.meta.url));
    const child = spawn(process.execPath, [...NODE_FLAGS, main], {
      stdio: ["ignore", "ignore", "inherit", "ipc"],
      env: {},
      cwd: "/",
    });
    child.once("exit", () => this.#lost(child));
    child.once("error", () => this.#lost(child));
    child.on("message", (message: FromKeeper) => {
      const opened = this.#open.get(message.id);
      if (message.type === "opened") opened?.resolve(message.path);
      else opened?.reject(new Error(message.message));
    });
    child.send({ type: "hello", ...hello } satisfies ToKeeper, () => undefined);
    return child;
  }

  #lost(child: ChildProcess): void {
    if (this.#child !== child) return;
    this.#child = undefined;
    const lost = [...this.#open];
    this.#open.clear();
    for (const [, opened] of lost) opened.reject(new Error("the keeper of terminals ended"));
    this.#onLost(lost.map(([id]) => id));
  }

  #send(message: ToKeeper): void {
    if (this.#child?.connected) this.#child.send(message, () => undefined);
  }
}
