const NEWLINE = 0x0a;
/** A tool update of opencode repeats a written file twice: room for the largest file a project takes. */
const DEFAULT_MAX_BYTES = 32 * 1024 * 1024;

export interface LineReaderOptions {
  /** Longer lines are skipped whole, in bounded memory. */
  readonly maxBytes?: number;
  onLine(line: string): void;
  onTooLong(maxBytes: number): void;
}

/** Cuts a byte stream into UTF-8 lines. Looks at every byte once, however the chunks fall. */
export class LineReader {
  readonly #options: LineReaderOptions;
  readonly #maxBytes: number;
  #parts: Buffer[] = [];
  #bytes = 0;
  #skipping = false;

  constructor(options: LineReaderOptions) {
    this.#options = options;
    this.#maxBytes = options.maxBytes ?? DEFAULT_MAX_BYTES;
  }

  push(chunk: Buffer): void {
    let from = 0;
    for (let at = chunk.indexOf(NEWLINE); at !== -1; at = chunk.indexOf(NEWLINE, from)) {
      this.#add(chunk.subarray(from, at));
      this.#endLine();
      from = at + 1;
    }
    if (from < chunk.length) this.#add(chunk.subarray(from));
  }

  #add(part: Buffer): void {
    if (this.#skipping) return;
    this.#bytes += part.length;
    if (this.#bytes <= this.#maxBytes) {
      this.#parts.push(part);
      return;
    }
    this.#skipping = true;
    this.#parts = [];
    this.#options.onTooLong(this.#maxBytes);
  }

  #endLine(): void {
    const line = this.#skipping ? undefined : Buffer.concat(this.#parts).toString("utf8");
    this.#parts = [];
    this.#bytes = 0;
    this.#skipping = false;
    if (line !== undefined) this.#options.onLine(line);
  }
}
