import type { ListedFile, WasmFiles } from "../engines/wasm/types.ts";

/** Files in memory, as a caller of the engine gives them, with every path that was asked for. */
export interface MemoryFiles extends WasmFiles {
  readonly files: Map<string, Uint8Array>;
  readonly asked: string[];
}

export function memoryFiles(
  content: Readonly<Record<string, Uint8Array | string>>,
  options: { readOnly?: boolean; maxBytes?: number } = {},
): MemoryFiles {
  const files = new Map(
    Object.entries(content).map(([path, bytes]) => [
      path,
      typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes,
    ]),
  );
  const asked: string[] = [];
  return {
    files,
    asked,
    maxBytes: options.maxBytes ?? 1024 * 1024,
    async read(path) {
      asked.push(`read ${path}`);
      return files.get(path);
    },
    async list(path) {
      asked.push(`list ${path}`);
      const start = path === "" ? "" : `${path}/`;
      const entries = new Map<string, ListedFile>();
      for (const [each, bytes] of files) {
        if (!each.startsWith(start)) continue;
        const [name = "", ...deeper] = each.slice(start.length).split("/");
        const directory = deeper.length > 0;
        entries.set(name, { name, directory, size: directory ? 0 : bytes.length });
      }
      return entries.size === 0 && path !== "" ? undefined : [...entries.values()];
    },
    ...(options.readOnly === true
      ? {}
      : {
          async write(path: string, bytes: Uint8Array) {
            asked.push(`write ${path}`);
            files.set(path, bytes);
          },
        }),
  };
}
