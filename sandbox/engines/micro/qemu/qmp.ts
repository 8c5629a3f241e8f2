import type { Readable, Writable } from "node:stream";
import { AppError } from "#schemas";

/** A whole answer is one line; none that we ask for comes near this. */
const MAX_LINE_BYTES = 256 * 1024;
/** Lines that answer nothing we asked, e.g. events; more in one burst is a flood. */
const MAX_UNASKED = 10_000;
const MAX_TEXT = 300;

type Members = Readonly<Record<string, unknown>>;

interface Asked {
  resolve: (value: unknown) => void;
  reject: (error: AppError) => void;
  timer: NodeJS.Timeout;
}

interface Awaited {
  name: string;
  matches: (data: Members) => boolean;
  resolve: (data: Members) => void;
  reject: (error: AppError) => void;
  timer: NodeJS.Timeout;
}

const isMembers = (value: unknown): value is Members =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function parsed(line: string): Members | undefined {
  try {
    const message: unknown = JSON.parse(line);
    return isMembers(message) ? message : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The server's end of a QEMU's monitor (QMP, qemu.org/docs/master/interop/qmp-spec.html): one JSON object per line
 * each way. The other side counts as hostile, for a guest may have taken it over: lines and their number are bounded,
 * every answer has a time-out, and the first line that is none closes the connection. Commands are answered in order.
 */
export class Qmp {
  /** Why it closed; resolves, never rejects. */
  readonly closed: Promise<AppError>;
  readonly #output: Writable;
  readonly #input: Readable;
  readonly #asked = new Map<number, Asked>();
  readonly #awaited = new Set<Awaited>();
  readonly #close: (error: AppError) => void;
  readonly #greeting = Promise.withResolvers<void>();
  #chunks: Buffer[] = [];
  #bytes = 0;
  #unasked = 0;
  #nextId = 1;
  #ended: AppError | undefined;

  private constructor(input: Readable, output: Writable) {
    this.#input = input;
    this.#output = output;
    const closed = Promise.withResolvers<AppError>();
    this.closed = closed.promise;
    this.#close = closed.resolve;
    this.#greeting.promise.catch(() => undefined);
    input.on("data", (chunk: Buffer) => this.#read(chunk));
    for (const stream of [input, output]) {
      stream.on("error", () => this.#end(gone()));
      stream.on("close", () => this.#end(gone()));
    }
    input.on("end", () => this.#end(gone()));
  }

  /** Wait for the greeting, then ask for commands to be taken. `ms` bounds each of the two. */
  static async open(input: Readable, output: Writable, ms: number): Promise<Qmp> {
    const qmp = new Qmp(input, output);
    const timer = setTimeout(() => qmp.#end(late("the greeting", ms)), ms);
    try {
      await qmp.#greeting.promise;
    } finally {
      clearTimeout(timer);
    }
    await qmp.command("qmp_capabilities", {}, ms);
    return qmp;
  }

  /** The `return` member of the answer. Throws AppError Unavailable for an `error` one or a lost connection, Timeout. */
  command(execute: string, args: Members, ms: number): Promise<unknown> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#end(late(execute, ms)), ms);
      this.#asked.set(id, { resolve, reject, timer });
      this.#output.write(`${JSON.stringify({ execute, arguments: args, id })}\n`);
    });
  }

  /** The next event of that name whose data match; to be asked for before what causes it. */
  event(name: string, matches: (data: Members) => boolean, ms: number): Promise<Members> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#end(late(`the event ${name}`, ms)), ms);
      this.#awaited.add({ name, matches, resolve, reject, timer });
    });
  }

  close(): void {
    this.#end(gone());
  }

  #read(chunk: Buffer): void {
    let rest = chunk;
    while (this.#ended === undefined && rest.length > 0) {
      const at = rest.indexOf(10);
      const part = at < 0 ? rest : rest.subarray(0, at);
      this.#bytes += part.length;
      if (this.#bytes > MAX_LINE_BYTES) this.#end(malformed("a line without an end"));
      else this.#chunks.push(part);
      if (at < 0) return;
      const line = Buffer.concat(this.#chunks).toString("utf8").trim();
      this.#chunks = [];
      this.#bytes = 0;
      rest = rest.subarray(at + 1);
      if (line !== "") this.#take(line);
    }
  }

  #take(line: string): void {
    const message = parsed(line);
    if (message === undefined) {
      this.#end(malformed("a line that is no JSON object"));
      return;
    }
    const asked = typeof message.id === "number" ? this.#asked.get(message.id) : undefined;
    if (asked !== undefined && ("return" in message || "error" in message)) {
      this.#asked.delete(Number(message.id));
      clearTimeout(asked.timer);
      this.#unasked = 0;
      if ("return" in message) asked.resolve(message.return);
      else asked.reject(refused(message.error));
      return;
    }
    this.#unasked += 1;
    if (this.#unasked > MAX_UNASKED) this.#end(malformed("a flood of events"));
    else if ("QMP" in message) this.#greeting.resolve();
    else if (typeof message.event === "string") {
      this.#notice(message.event, isMembers(message.data) ? message.data : {});
    } else this.#end(malformed("an answer to nothing that was asked"));
  }

  #notice(name: string, data: Members): void {
    for (const awaited of this.#awaited) {
      if (awaited.name !== name || !awaited.matches(data)) continue;
      this.#awaited.delete(awaited);
      clearTimeout(awaited.timer);
      awaited.resolve(data);
    }
  }

  #end(error: AppError): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    this.#chunks = [];
    this.#greeting.reject(error);
    for (const { reject, timer } of [...this.#asked.values(), ...this.#awaited]) {
      clearTimeout(timer);
      reject(error);
    }
    this.#asked.clear();
    this.#awaited.clear();
    this.#input.destroy();
    this.#output.destroy();
    this.#close(error);
  }
}

const gone = () => new AppError("Unavailable", "The virtual machine's monitor is gone.");
const late = (what: string, ms: number) =>
  new AppError("Timeout", `The virtual machine's monitor did not answer in ${ms} ms (${what}).`);
const malformed = (what: string) =>
  new AppError("Unavailable", `The virtual machine's monitor sent ${what}.`, {
    hint: "The machine was ended; start another one.",
  });

function refused(error: unknown): AppError {
  const text = isMembers(error) && typeof error.desc === "string" ? error.desc : "no reason given";
  return new AppError("Unavailable", `The virtual machine's monitor refused: ${text.slice(0, MAX_TEXT)}`);
}
