import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { availableParallelism, freemem, loadavg, totalmem } from "node:os";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { median, percentile, printTable, type Row } from "../support.ts";
import type { Answers, Question } from "./peer.ts";
import { BenchStudio } from "./studio.ts";
import { promptOf } from "./task.ts";

const PEER = fileURLToPath(new URL("./peer.ts", import.meta.url));
const MIB = 1024 * 1024;
/** Sessions at once, and how often each is tried. */
const DEFAULT = { native: [1, 50, 500, 1000], opencode: [1, 10, 20, 50], rounds: 3 };
/** Rounds beyond the first are for what is over soon. */
const MANY: Readonly<Record<Runner, number>> = { native: 500, opencode: 10 };

type Runner = "native" | "opencode";

interface Measured {
  /** Sessions that were at work at once, and those that completed. */
  atOnce: number;
  completed: number;
  firstMs: number[];
  /** From the first dispatch until all had asked, and from the answer until all had ended. */
  startMs: number;
  workMs: number;
  events: number;
  cpuMs: number;
  ownCpuMs: number;
  /** This process's growth, as the kernel sees it, and of what it has in use: one that was larger before has room. */
  rssBytes: number;
  usedBytes: number;
  treeBytes: number;
  /** Longest time in which this process's one thread did not look up. */
  stuckMs: number;
}

/**
 * Sessions of both runners at once in one process, alternating. Arguments, as in
 * `npm run bench -- agents native=1,50 opencode=1 rounds=5`; nothing after the `=` leaves a runner out.
 */
export async function bench(): Promise<void> {
  const wanted = readArguments(process.argv.slice(3));
  const memory = `${gigabytes(freemem())} of ${gigabytes(totalmem())} GiB free`;
  console.log(`${availableParallelism()} cores, load ${loadavg()[0]?.toFixed(1)}, ${memory}`);
  await using peer = await Peer.start();
  await using studio = await BenchStudio.open(peer.url, Math.max(...wanted.native, ...wanted.opencode, 20));
  if (wanted.native.length > 0) await round(studio, peer, "native", 20);
  if (wanted.opencode.length > 0) await round(studio, peer, "opencode", 1);
  const results = new Map<string, Measured[]>();
  for (let turn = 0; turn < wanted.rounds; turn += 1) {
    for (let step = 0; step < Math.max(wanted.native.length, wanted.opencode.length); step += 1) {
      for (const runner of ["native", "opencode"] as const) {
        const sessions = wanted[runner][step];
        if (sessions === undefined || (turn > 0 && sessions > MANY[runner])) continue;
        const name = `${sessions} ${runner}`;
        const measured = await round(studio, peer, runner, sessions);
        results.set(name, [...(results.get(name) ?? []), measured]);
      }
    }
  }
  console.log();
  printTable([...results].map(([name, runs]) => row(name, runs)));
  printRatios(results);
}

async function round(studio: BenchStudio, peer: Peer, runner: Runner, sessions: number): Promise<Measured> {
  const name = Math.random().toString(36).slice(2, 10);
  const { launcherPid: pid = -1 } = studio.sandboxes;
  const before = { ...ownMemory(), tree: (await peer.ask({ ask: "memory", pid })).bytes };
  const allAsked = peer.ask({ ask: "begin", round: name, sessions });
  const cpu = process.cpuUsage();
  const beginsAt = now();
  const prompts = Array.from({ length: sessions }, (_, index) => promptOf(name, index));
  const accepted = await studio.dispatch(runner, name, prompts);
  const { at } = await allAsked;
  const firstMs = at.flatMap((time, index) => (time == null ? [] : [time - (accepted[index] ?? time)]));
  const startMs = Math.max(...at.map((time) => time ?? 0)) - beginsAt;
  const starting = process.cpuUsage(cpu);
  const held = { ...ownMemory(), tree: (await peer.ask({ ask: "memory", pid })).bytes };
  const working = process.cpuUsage();
  const goesAt = now();
  const delay = monitorEventLoopDelay({ resolution: 10 });
  delay.enable();
  await peer.ask({ ask: "go" });
  const ended = await studio.ended(name);
  const worked = process.cpuUsage(working);
  const { cpuMs } = await peer.ask({ ask: "end" });
  const ownCpuMs = (starting.user + starting.system + worked.user + worked.system) / 1000;
  const measured = {
    atOnce: firstMs.length,
    completed: ended.completed,
    firstMs,
    startMs,
    workMs: ended.at - goesAt,
    events: ended.events,
    cpuMs: cpuMs + ownCpuMs,
    ownCpuMs,
    rssBytes: held.rss - before.rss,
    usedBytes: held.used - before.used,
    treeBytes: held.tree - before.tree,
    stuckMs: delay.max / 1e6,
  };
  console.log(
    `${sessions} ${runner}: ${Math.round(startMs)} ms until all had asked, ${Math.round(measured.workMs)} ms after`,
  );
  return measured;
}

function row(name: string, runs: readonly Measured[]): Row {
  const of = (value: (run: Measured) => number) => median(runs.map(value));
  const sessions = Number.parseInt(name, 10);
  const first = runs.flatMap((run) => run.firstMs);
  return {
    name,
    "at once": of((run) => run.atOnce),
    completed: of((run) => run.completed),
    "first p50 ms": median(first),
    "first p99 ms": percentile(first, 0.99),
    "whole ms": of(wholeMs),
    "MiB/session": of(bytes) / MIB / sessions,
    "events/s": of((run) => (run.events / run.workMs) * 1000),
    "cpu ms/task": of((run) => run.cpuMs) / sessions,
    "of it here": of((run) => run.ownCpuMs) / sessions,
    "stuck ms": of((run) => run.stuckMs),
    rounds: runs.length,
  };
}

const wholeMs = ({ startMs, workMs }: Measured) => startMs + workMs;
const bytes = (run: Measured) => Math.max(run.rssBytes, run.usedBytes) + run.treeBytes;

/** Each number of opencode's sessions beside the native one nearest to it. */
function printRatios(results: ReadonlyMap<string, readonly Measured[]>): void {
  const counts = (runner: Runner) =>
    [...results].flatMap(([name, runs]) =>
      name.endsWith(runner) ? [{ sessions: Number.parseInt(name, 10), runs }] : [],
    );
  const rows = counts("opencode").flatMap(({ sessions, runs }) => {
    const fitting = counts("native").toSorted(
      (one, other) => Math.abs(one.sessions - sessions) - Math.abs(other.sessions - sessions),
    )[0];
    if (fitting === undefined) return [];
    const times = (value: (run: Measured) => number) =>
      (median(runs.map(value)) / sessions / (median(fitting.runs.map(value)) / fitting.sessions)).toFixed(0);
    const first = (all: readonly Measured[]) => median(all.flatMap((run) => run.firstMs));
    return {
      name: `${sessions} opencode / ${fitting.sessions} native`,
      "first request": (first(runs) / first(fitting.runs)).toFixed(0),
      "time per task": times(wholeMs),
      memory: times(bytes),
      cpu: times((run) => run.cpuMs),
    };
  });
  if (rows.length === 0) return;
  console.log("\nper session, opencode is so many times native:");
  printTable(rows);
}

/** The process with the model in it. */
class Peer implements AsyncDisposable {
  readonly url: string;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, url: string) {
    this.#child = child;
    this.url = url;
  }

  static async start(): Promise<Peer> {
    const child = fork(PEER, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    const [{ url }] = await once(child, "message");
    return new Peer(child, url);
  }

  /** One question at a time, but for `begin`, which is answered when all have asked. */
  async ask<Q extends Question>(question: Q): Promise<Answers[Q["ask"]]> {
    const answered = once(this.#child, "message");
    this.#child.send(question);
    const [answer] = await answered;
    return answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exited = once(this.#child, "exit");
    this.#child.disconnect();
    await exited;
  }
}

let collect: (() => void) | undefined;

/** This process's memory without what is only waiting to be collected, bytes. */
function ownMemory(): { rss: number; used: number } {
  if (collect === undefined) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as () => void;
  }
  collect();
  collect();
  const { rss, heapUsed, external } = process.memoryUsage();
  return { rss, used: heapUsed + external };
}

const now = () => performance.timeOrigin + performance.now();
const gigabytes = (bytes: number) => (bytes / 1024 ** 3).toFixed(0);

function readArguments(given: readonly string[]): typeof DEFAULT {
  const wanted = { ...DEFAULT };
  for (const each of given) {
    const [name, value = ""] = each.split("=", 2);
    const numbers = value
      .split(",")
      .filter((text) => text !== "")
      .map(Number);
    if (name === "rounds") wanted.rounds = numbers[0] ?? wanted.rounds;
    else if (name === "native" || name === "opencode") wanted[name] = numbers;
    else throw new Error(`what is "${each}"? As in: native=1,50 opencode=1 rounds=3`);
  }
  return wanted;
}
