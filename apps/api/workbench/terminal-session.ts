import { StringDecoder } from "node:string_decoder";
import type { SandboxExit, SandboxTerminal } from "#sandbox";
import type { MethodParams, MethodResult } from "#schemas";
import type { Flushed } from "#workspaces/live-workspace.ts";
import type { Connection } from "../handler.ts";

/** Output sent and not acknowledged, above which no more is read, and below which it is read on. */
const HIGH_BYTES = 512 * 1024;
const LOW_BYTES = 128 * 1024;
/** Output that comes within this time is sent as one. */
const BATCH_MS = 5;
const BATCH_BYTES = 64 * 1024;
/** What is shown again after a reconnect. */
const REPLAY_CHARS = 256 * 1024;

export interface TerminalSessionOptions {
  readonly id: string;
  readonly user_id: string;
  readonly project_id: string;
  readonly command: string;
  readonly terminal: SandboxTerminal;
  readonly size: { columns: number; rows: number };
  /** How long it lives without a connection that shows it, ms. */
  readonly detachedMs: number;
}

/**
 * A terminal as its user sees it: on one connection at a time, at the speed that connection takes. Without one it
 * works on, and what it showed last is kept for the next.
 */
export class TerminalSession {
  readonly options: TerminalSessionOptions;
  readonly #terminal: SandboxTerminal;
  readonly #decoder = new StringDecoder("utf8");
  readonly #startedAt = new Date();
  #size: { columns: number; rows: number };
  #connection: Connection | undefined;
  #detach: (() => void) | undefined;
  #detachedTimer: NodeJS.Timeout | undefined;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #batchTimer: NodeJS.Timeout | undefined;
  #seq = 0;
  #unacknowledged: { seq: number; bytes: number }[] = [];
  /** Characters handed to a connection that its peer has not taken: acknowledging them early helps nobody. */
  readonly #unsent = new WeakMap<Connection, number>();
  #replay: string[] = [];
  #replayChars = 0;
  #reason: string | undefined;
  /** Everything it wrote has been taken. */
  readonly drained: Promise<void>;

  constructor(options: TerminalSessionOptions) {
    this.options = options;
    this.#terminal = options.terminal;
    this.#size = options.size;
    const { output } = options.terminal;
    // Until somebody shows it.
    this.#startDetachedTimer();
    output.on("data", (chunk: Buffer) => this.#take(chunk));
    output.on("error", () => undefined);
    this.drained = new Promise((resolve) => {
      const end = () => {
        this.#flush();
        resolve();
      };
      if (output.closed) end();
      else output.once("close", end);
    });
  }

  get id(): string {
    return this.options.id;
  }

  view(): MethodResult<"terminal.open"> {
    const { id, project_id, command } = this.options;
    return {
      terminal_id: id,
      project_id,
      command,
      started_at: this.#startedAt.toISOString(),
      attached: this.#connection !== undefined,
      ...this.#size,
    };
  }

  /** Show it on this connection from now on, and no more on another. Call when the connection knows its id. */
  attach(connection: Connection): void {
    this.#letGo();
    if (connection.closed.aborted) {
      this.#startDetachedTimer();
      return;
    }
    clearTimeout(this.#detachedTimer);
    this.#connection = connection;
    const onClosed = () => {
      this.#letGo();
      this.#startDetachedTimer();
    };
    connection.closed.addEventListener("abort", onClosed, { once: true });
    this.#detach = () => connection.closed.removeEventListener("abort", onClosed);
    // A connection that has not taken the last replay is not given another.
    if (this.#replay.length > 0 && this.#unsentOn(connection) === 0) this.#send(this.#replay.join(""));
    this.#control();
  }

  input(data: string): void {
    this.#terminal.write(data);
  }

  resize({ columns, rows }: Pick<MethodParams<"terminal.resize">, "columns" | "rows">): void {
    this.#terminal.resize({ cols: columns, rows });
    this.#size = { columns, rows };
  }

  acknowledge(seq: number): void {
    this.#unacknowledged = this.#unacknowledged.filter((sent) => sent.seq > seq);
    this.#control();
  }

  /** End it; `reason` is told to whoever shows it. */
  async kill(reason?: string): Promise<void> {
    this.#reason ??= reason;
    await this.#terminal.kill();
  }

  tellSaved({ revision, change_id, warnings }: Flushed, current: number): void {
    if (revision === undefined && change_id === undefined && warnings.length === 0) return;
    void this.#connection?.notify("terminal.saved", {
      terminal_id: this.id,
      revision: revision ?? current,
      ...(change_id === undefined ? {} : { change_id }),
      ...(warnings.length === 0 ? {} : { warnings: [...warnings] }),
    });
  }

  /** It has ended and its output has been sent. */
  tellExit({ code, signal, limit }: SandboxExit): void {
    const reason = this.#reason ?? limit;
    void this.#connection?.notify("terminal.exit", {
      terminal_id: this.id,
      exit_code: code,
      signal,
      ...(reason === undefined ? {} : { reason }),
    });
    this.#letGo();
    clearTimeout(this.#detachedTimer);
  }

  #letGo(): void {
    this.#detach?.();
    this.#detach = undefined;
    this.#connection = undefined;
    this.#unacknowledged = [];
    this.#control();
  }

  #startDetachedTimer(): void {
    clearTimeout(this.#detachedTimer);
    this.#detachedTimer = setTimeout(() => {
      void this.kill("nobody showed it").catch(() => undefined);
    }, this.options.detachedMs);
    this.#detachedTimer.unref();
  }

  #take(chunk: Buffer): void {
    this.#pending.push(chunk);
    this.#pendingBytes += chunk.length;
    if (this.#pendingBytes >= BATCH_BYTES) this.#flush();
    else this.#batchTimer ??= setTimeout(() => this.#flush(), BATCH_MS);
  }

  #flush(): void {
    clearTimeout(this.#batchTimer);
    this.#batchTimer = undefined;
    const text = this.#decoder.write(Buffer.concat(this.#pending));
    this.#pending = [];
    this.#pendingBytes = 0;
    if (text === "") return;
    this.#replay.push(text);
    this.#replayChars += text.length;
    while (this.#replayChars > REPLAY_CHARS && this.#replay.length > 1) {
      this.#replayChars -= this.#replay.shift()?.length ?? 0;
    }
    this.#send(text);
    this.#control();
  }

  #send(data: string): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    this.#seq += 1;
    this.#unacknowledged.push({ seq: this.#seq, bytes: data.length });
    this.#unsent.set(connection, this.#unsentOn(connection) + data.length);
    void connection.notify("terminal.output", { terminal_id: this.id, seq: this.#seq, data }).then(() => {
      this.#unsent.set(connection, this.#unsentOn(connection) - data.length);
      this.#control();
    });
  }

  #unsentOn(connection: Connection): number {
    return this.#unsent.get(connection) ?? 0;
  }

  /** Read no faster than the connection shows; without one, as fast as it comes. */
  #control(): void {
    const { output } = this.#terminal;
    const unacknowledged = this.#unacknowledged.reduce((sum, { bytes }) => sum + bytes, 0);
    const unsent = this.#connection === undefined ? 0 : this.#unsentOn(this.#connection);
    const waiting = Math.max(unacknowledged, unsent);
    if (waiting > HIGH_BYTES) output.pause();
    else if (waiting <= LOW_BYTES && output.isPaused()) output.resume();
  }
}
