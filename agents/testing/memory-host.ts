import { AppError } from "#schemas";
import type { ExecOptions, ExecResult, HostEntry, ToolHost } from "../tools/index.ts";

/** A host of nothing but a map, for tests of what is pure: path -> text. Commands are answered by `onExec`. */
export class MemoryHost implements ToolHost {
  readonly directory = "/workspace/request/work";
  readonly files: Map<string, Uint8Array>;
  readonly commands: string[] = [];
  onExec: (command: string, options: ExecOptions) => Promise<Partial<ExecResult>> = async () => ({});

  constructor(files: Readonly<Record<string, string>> = {}) {
    this.files = new Map(Object.entries(files).map(([path, text]) => [path, new TextEncoder().encode(text)]));
  }

  text(path: string): string {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.files.get(path));
  }

  async read(path: string): Promise<Uint8Array> {
    const content = this.files.get(path);
    if (content === undefined) throw new AppError("NotFound", `There is no ${path}.`);
    return content;
  }

  async write(path: string, content: Uint8Array): Promise<void> {
    this.files.set(path, content);
  }

  async remove(path: string): Promise<void> {
    this.files.delete(path);
  }

  async list(path: string): Promise<readonly HostEntry[]> {
    const prefix = path === "" ? "" : `${path}/`;
    const below = [...this.files.keys()].filter((file) => file.startsWith(prefix));
    const names = new Map<string, HostEntry>();
    for (const file of below) {
      const [name = "", ...rest] = file.slice(prefix.length).split("/");
      names.set(name, { name, kind: rest.length === 0 ? "file" : "directory" });
    }
    return [...names.values()].sort((one, other) => (one.name < other.name ? -1 : 1));
  }

  async walk({ maxFiles }: { readonly maxFiles: number }): Promise<readonly string[]> {
    return [...this.files.keys()].sort().slice(0, maxFiles);
  }

  async exec(command: string, options: ExecOptions): Promise<ExecResult> {
    this.commands.push(command);
    const result = await this.onExec(command, options);
    return { code: 0, output: "", truncated: false, timedOut: false, ...result };
  }
}
