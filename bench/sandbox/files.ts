import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Jail } from "#sandbox";
import { median, printTable, type Row } from "../support.ts";

const ROUNDS = 15;
const READS = 400;
const MAX_BYTES = 1024 * 1024;

type Reader = (path: string) => Promise<unknown>;

/** What is usually done, and does not hold: between the check and the reading a link can take the place. */
async function checkThenRead(root: string, path: string): Promise<Buffer> {
  const real = await realpath(join(root, path));
  if (!real.startsWith(`${root}/`)) throw new Error("outside");
  return readFile(real);
}

/** us per read, one after the other. */
async function timed(read: Reader, path: string): Promise<number> {
  const started = performance.now();
  for (let index = 0; index < READS; index += 1) await read(path);
  return ((performance.now() - started) * 1000) / READS;
}

/** Reading a file of 1 KB in a directory others may change: by the jail, by hand, and without any care. */
export async function benchFiles(): Promise<void> {
  const root = await realpath(await mkdtemp(join(tmpdir(), "cds-bench-files-")));
  try {
    const paths = { "depth 1": "file", "depth 5": "a/b/c/d/file" };
    await mkdir(join(root, "a/b/c/d"), { recursive: true });
    for (const path of Object.values(paths)) await writeFile(join(root, path), "x".repeat(1024));
    await using jail = await Jail.open(root);
    const readers: Record<string, Reader> = {
      "plain readFile": (path) => readFile(join(root, path)),
      "realpath, check, readFile": (path) => checkThenRead(root, path),
      jail: (path) => jail.read(path, MAX_BYTES),
    };
    const rows: Row[] = [];
    for (const [depth, path] of Object.entries(paths)) rows.push(...(await compare(depth, path, readers)));
    printTable(rows);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

async function compare(depth: string, path: string, readers: Record<string, Reader>): Promise<Row[]> {
  const figures = new Map(Object.keys(readers).map((name) => [name, [] as number[]]));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [name, read] of Object.entries(readers)) figures.get(name)?.push(await timed(read, path));
  }
  const plain = median(figures.get("plain readFile") ?? []);
  return [...figures].map(([name, values]) => ({
    name: `${name}, ${depth}`,
    "us p50": median(values),
    "us min": Math.min(...values),
    "of plain": median(values) / plain,
  }));
}
