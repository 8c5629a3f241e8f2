import type { Socket } from "node:net";
import type { Readable } from "node:stream";
import { AppError } from "#schemas";
import { findProgram } from "../../host.ts";
import type { ProcessInfo } from "../../process-tree.ts";
import type { SandboxSpec, SandboxTerminal, TerminalSize, TerminalSpec } from "../../types.ts";
import { RunTree, type RunTreeInput } from "./tree.ts";

/** More columns or rows than any screen has, and than programs are prepared for. */
const MAX_SIZE = 1000;
/** Typed or pasted, and taken by no program yet. */
const MAX_WAITING_BYTES = 1024 * 1024;
const TERMINAL_ENV = { TERM: "xterm-256color", COLORTERM: "truecolor" } as const;
/** A letter of several bytes is deleted as one where the kernel itself edits the line. */
const PREPARE = 'stty iutf8; exec "$@"';

/** Throws AppError InvalidParams. */
export function checkSize(size: TerminalSize): void {
  for (const [name, value] of Object.entries(size)) {
    if (Number.isInteger(value) && value >= 1 && value <= MAX_SIZE) continue;
    throw new AppError("InvalidParams", `A terminal cannot have ${value} ${name}.`, {
      hint: `1 to ${MAX_SIZE}.`,
    });
  }
}

/**
 * What is run so that the program becomes the leader of a session whose terminal that is, and so can do job
 * control. bubblewrap has made a session before, with which the launcher's is out of reach.
 */
export function terminalProgram({ argv, env }: TerminalSpec): Pick<SandboxSpec, "argv" | "env"> {
  const program = argv ?? [findProgram("bash") === undefined ? "sh" : "bash"];
  return {
    argv: program.length === 0 ? [] : ["setsid", "-c", "sh", "-c", PREPARE, "sh", ...program],
    env: { ...TERMINAL_ENV, ...env },
  };
}

export class RunTerminal extends RunTree implements SandboxTerminal {
  readonly #socket: Socket;
  readonly #resize: (size: TerminalSize) => void;

  constructor(input: RunTreeInput) {
    super("terminal", input);
    const { launched, launcher } = input;
    const [socket] = launched.streams;
    if (socket === undefined) throw new Error("a terminal was started without its stream");
    this.#socket = socket;
    this.#resize = (size) => launcher.resize(launched, size);
  }

  get output(): Readable {
    return this.#socket;
  }

  write(input: Uint8Array | string): void {
    if (this.#socket.writableLength > MAX_WAITING_BYTES) {
      throw new AppError("QuotaExceeded", "The terminal has more input than its program takes.", {
        hint: "Stop the program (Ctrl+C), or wait until it reads.",
      });
    }
    if (this.#socket.writable) this.#socket.write(input);
    this.rouse();
  }

  resize(size: TerminalSize): void {
    checkSize(size);
    this.#resize(size);
  }

  protected override signalledGroup(program: ProcessInfo): number {
    return program.foreground > 0 ? program.foreground : program.group;
  }

  /** The same stream still carries what was written last; it ends by itself. */
  protected closeInput(): void {}

  protected dropStreams(): void {
    this.#socket.destroy();
  }
}
