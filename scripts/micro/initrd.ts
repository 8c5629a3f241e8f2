import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { tool } from "./debian.ts";

/** Drivers of the machine's devices and of its root. What the kernel has built in is left out. */
const MODULES = ["virtio_pci", "virtio_blk", "virtio_console", "squashfs"];

interface Entry {
  path: string;
  mode: number;
  data: Buffer;
}

const directory = (path: string): Entry => ({ path, mode: 0o40755, data: Buffer.alloc(0) });
const file = (path: string, data: Buffer, mode = 0o100644): Entry => ({ path, mode, data });

export interface InitrdInput {
  busybox: string;
  init: string;
  /** The agent's Python files. */
  agent: readonly string[];
  /** `lib/modules/<version>` of the kernel. */
  modules: string;
}

export async function makeInitrd(input: InitrdInput): Promise<Buffer> {
  const entries = ["proc", "sys", "dev", "root", "modules", "agent"].map(directory);
  entries.push(file("busybox", await readFile(input.busybox), 0o100755));
  entries.push(file("init", await readFile(input.init), 0o100755));
  for (const path of input.agent) entries.push(file(`agent/${basename(path)}`, await readFile(path)));
  for (const [index, module] of (await orderModules(input.modules)).entries()) {
    const name = `${String(index).padStart(2, "0")}-${module.name}.ko`;
    entries.push(file(`modules/${name}`, module.data));
  }
  return cpio(entries);
}

/** Each module after those it depends on, as its own `depends=` tells. */
async function orderModules(root: string): Promise<{ name: string; data: Buffer }[]> {
  const builtin = new Set(
    (await readFile(join(root, "modules.builtin"), "utf8")).split("\n").map(moduleName),
  );
  const files = new Map<string, string>();
  for (const path of await readdir(root, { recursive: true })) {
    if (/\.ko(\.xz|\.zst|\.gz)?$/.test(path)) files.set(moduleName(path), join(root, path));
  }
  const ordered = new Map<string, Buffer>();
  const add = async (name: string): Promise<void> => {
    if (builtin.has(name) || ordered.has(name)) return;
    const path = files.get(name);
    if (path === undefined) throw new Error(`the kernel has no module ${name}`);
    const data = await readModule(path);
    const depends = /\0depends=([^\0]*)\0/.exec(data.toString("latin1"))?.[1] ?? "";
    for (const other of depends.split(",").filter((part) => part !== "")) await add(moduleName(other));
    ordered.set(name, data);
  };
  for (const name of MODULES) await add(moduleName(name));
  return [...ordered].map(([name, data]) => ({ name, data }));
}

const moduleName = (path: string) =>
  basename(path)
    .replace(/\.ko.*$/, "")
    .replaceAll("-", "_");

async function readModule(path: string): Promise<Buffer> {
  if (path.endsWith(".ko")) return readFile(path);
  const packers: Record<string, string> = { xz: "xz", zst: "zstd", gz: "gzip" };
  const packer = packers[path.slice(path.lastIndexOf(".") + 1)] ?? "xz";
  return Buffer.from(await tool("sh", ["-c", '"$1" -dc "$2" | base64', "sh", packer, path]), "base64");
}

/** The "newc" format, with all owners root and all times zero: the same input gives the same bytes. */
function cpio(entries: readonly Entry[]): Buffer {
  const parts: Buffer[] = [];
  const pad = (length: number) => Buffer.alloc((4 - (length % 4)) % 4);
  const add = ({ path, mode, data }: Entry, inode: number) => {
    const name = Buffer.from(`${path}\0`);
    const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, name.length, 0];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`;
    parts.push(Buffer.from(header), name, pad(header.length + name.length), data, pad(data.length));
  };
  for (const [index, entry] of entries.entries()) add(entry, index + 1);
  add({ path: "TRAILER!!!", mode: 0, data: Buffer.alloc(0) }, 0);
  return Buffer.concat(parts);
}
