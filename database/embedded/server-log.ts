import { closeSync, copyFileSync, fstatSync, ftruncateSync, openSync, readFileSync } from "node:fs";

const LARGEST_BYTES = 8 * 1024 * 1024;
const CHECK_MS = 5 * 60_000;

/** The server's log file: never larger than 8 MB plus what comes in five minutes, one older one beside it. */
export class ServerLog implements Disposable {
  readonly path: string;
  readonly fd: number;
  readonly #timer: NodeJS.Timeout;

  constructor(path: string) {
    this.path = path;
    // Appending: after a truncation the server's next line stands at the start.
    this.fd = openSync(path, "a", 0o600);
    this.rotate();
    this.#timer = setInterval(() => this.rotate(), CHECK_MS).unref();
  }

  rotate(): void {
    if (fstatSync(this.fd).size < LARGEST_BYTES) return;
    copyFileSync(this.path, `${this.path}.1`);
    ftruncateSync(this.fd, 0);
  }

  /** Where the log stands now, to read only what a start attempt adds. */
  size(): number {
    return fstatSync(this.fd).size;
  }

  /** What was logged since `from` bytes. */
  since(from: number): string {
    return readFileSync(this.path).subarray(from).toString("utf8");
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    closeSync(this.fd);
  }
}
