import type { Socket } from "node:net";
import type { SandboxProcess } from "../../types.ts";
import { RunTree, type RunTreeInput } from "./tree.ts";

/** A program whose three standard streams lead straight to the server. */
export class RunProcess extends RunTree implements SandboxProcess {
  readonly stdin: Socket;
  readonly stdout: Socket;
  readonly stderr: Socket;

  constructor(input: RunTreeInput) {
    super("process", input);
    const [stdin, stdout, stderr] = input.launched.streams;
    if (!stdin || !stdout || !stderr) throw new Error("a program was started without its streams");
    this.stdin = stdin;
    this.stdout = stdout;
    this.stderr = stderr;
  }

  protected closeInput(): void {
    this.stdin.destroy();
  }

  protected dropStreams(): void {
    this.stdin.destroy();
    for (const stream of [this.stdout, this.stderr]) if (stream.readableFlowing === null) stream.destroy();
  }
}
