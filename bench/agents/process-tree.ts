import { readdirSync, readFileSync } from "node:fs";

const TICK_MS = 10;
const PAGE_BYTES = 4096;

interface Process {
  pid: number;
  parent: number;
  /** Tells it from an earlier one with its number. */
  born: string;
  cpuMs: number;
  rssBytes: number;
}

/** What programs below a process have used, from now on. One that ends between two looks counts as it last looked. */
export class ProcessTree {
  readonly #root: number;
  readonly #before = new Map<string, number>();
  readonly #used = new Map<string, number>();

  /** Everything below `root`, but for what is below ourselves. */
  constructor(root: number) {
    this.#root = root;
    for (const { pid, born, cpuMs } of below(root)) this.#before.set(`${pid} ${born}`, cpuMs);
  }

  look(): void {
    for (const { pid, born, cpuMs } of below(this.#root)) {
      const key = `${pid} ${born}`;
      this.#used.set(key, cpuMs - (this.#before.get(key) ?? 0));
    }
  }

  /** Processor time, ms. */
  get cpuMs(): number {
    return [...this.#used.values()].reduce((sum, each) => sum + each, 0);
  }
}

/** Memory of everything below `root`, bytes: pages that several share count in parts, where the kernel tells. */
export function treeBytes(root: number): number {
  return below(root).reduce((sum, { pid, rssBytes }) => sum + (proportional(pid) ?? rssBytes), 0);
}

function proportional(pid: number): number | undefined {
  const found = /^Pss:\s+(\d+) kB/m.exec(read(`/proc/${pid}/smaps_rollup`));
  return found === null ? undefined : Number(found[1]) * 1024;
}

function below(root: number): Process[] {
  const children = new Map<number, Process[]>();
  for (const name of readdirSync("/proc")) {
    const each = /^\d+$/.test(name) ? processOf(Number(name)) : undefined;
    if (each === undefined || each.pid === process.pid) continue;
    const siblings = children.get(each.parent);
    if (siblings === undefined) children.set(each.parent, [each]);
    else siblings.push(each);
  }
  const found: Process[] = [];
  for (let next = children.get(root) ?? []; next.length > 0; ) {
    found.push(...next);
    next = next.flatMap(({ pid }) => children.get(pid) ?? []);
  }
  return found;
}

function processOf(pid: number): Process | undefined {
  const stat = read(`/proc/${pid}/stat`);
  // The name before it may hold anything.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [parent, user, system, born, pages] = [1, 11, 12, 19, 21].map((at) => fields[at]);
  if (born === undefined) return undefined;
  return {
    pid,
    parent: Number(parent),
    born,
    cpuMs: (Number(user) + Number(system)) * TICK_MS,
    rssBytes: Number(pages) * PAGE_BYTES,
  };
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
