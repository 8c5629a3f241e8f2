import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Jail } from "#sandbox";
import { FsEngine } from "#sandbox/engines/fs/engine.ts";
import { watchDirectory } from "#sandbox/engines/fs/watch.ts";
import { median, printTable, type Row } from "../support.ts";

const ROUNDS = 15;
const READS = 400;
const MAX_BYTES = 1024 * 1024;
const QUOTA = { bytes: MAX_BYTES, files: 1000, fileBytes: MAX_BYTES };
const WATCHED_DIRECTORIES = 250;
const FILES_EACH = 20;
const WRITES = 20;

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
    const engine = new FsEngine();
    await using directory = await engine.start({ root, quota: QUOTA });
    const readers: Record<string, Reader> = {
      "plain readFile": (path) => readFile(join(root, path)),
      "realpath, check, readFile": (path) => checkThenRead(root, path),
      jail: (path) => jail.read(path, MAX_BYTES),
      "fs engine": (path) => directory.read(path),
    };
    const rows: Row[] = [];
    for (const [depth, path] of Object.entries(paths)) rows.push(...(await compare(depth, path, readers)));
    printTable(rows);
    await benchWatch(join(root, "watched"));
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

/** What it costs to watch a project of 5,000 files, and how long after a write one is told. */
async function benchWatch(root: string): Promise<void> {
  for (let index = 0; index < WATCHED_DIRECTORIES; index += 1) {
    const dir = join(root, `${index % 10}/${index}`);
    await mkdir(dir, { recursive: true });
    for (let file = 0; file < FILES_EACH; file += 1) await writeFile(join(dir, `${file}.ts`), "x");
  }
  // A watch alone keeps no process running.
  const alive = setInterval(() => undefined, 1000);
  const setUp: number[] = [];
  const told: number[] = [];
  for (let round = 0; round < WRITES; round += 1) {
    const started = performance.now();
    const { promise, resolve } = Promise.withResolvers<void>();
    const watch = await watchDirectory(root, { onChange: () => resolve(), onError: () => resolve() });
    setUp.push(performance.now() - started);
    const written = performance.now();
    await writeFile(join(root, "5/45/0.ts"), `${round}`);
    await promise;
    told.push(performance.now() - written);
    await watch.close();
  }
  clearInterval(alive);
  printTable([
    { name: "watch 5,000 files in 260 directories", "ms p50": median(setUp), "ms min": Math.min(...setUp) },
    {
      name: "a write until it is told (100 ms of it waiting)",
      "ms p50": median(told),
      "ms min": Math.min(...told),
    },
  ]);
}
