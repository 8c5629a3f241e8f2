/**
 * The launcher: a small process forked early, because fork(2) from a server of 1.5 GB stops its event loop
 * for 100 ms and more, and from here for 2. It starts sandboxes, tells of their end, and ends them all when
 * the server is gone. Its imports are Node's own and leaf files beside it, to stay small.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, constants, openSync, readdirSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { setPriority } from "node:os";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { allProcesses, readProcess, treeOf } from "../process-tree.ts";
import type { LimitName } from "../types.ts";
import { Keeper } from "./keeper-client.ts";
import type { FromLauncher, LaunchRequest, ToLauncher } from "./protocol.ts";
import { type Hello, openStream } from "./streams.ts";
import { Watchdog } from "./watchdog.ts";

const FIRST_OWN_FD = 3;
const O_CLOEXEC = 0o2000000;
/** Under memory pressure the kernel takes a sandbox before the server. */
const OOM_SCORE = "500";
/** How long the status line may trail behind the exit of a very short program. */
const STATUS_WAIT_MS = 1000;
/** As nice(1) counts. */
const OWN_PRIORITY = -10;
const FAREWELL_MS = 15_000;
const STOP_MS = 5000;

interface Run {
  id: number;
  child: ChildProcess | undefined;
  initPid: number | undefined;
  limit: LimitName | null;
  cancelled: boolean;
}

const runs = new Map<number, Run>();
const watchdog = new Watchdog();
let hello: Hello | undefined;
/** With it go its terminals, and what runs in them loses what it reads and writes. */
const keeper = new Keeper((ids) => {
  for (const id of ids) stop(id);
});

function tell(message: FromLauncher): void {
  // Without a callback a broken channel would be thrown, and we end before having ended our sandboxes.
  if (process.connected) process.send?.(message, () => undefined);
}

/** Node marks its own descriptors close-on-exec; others come from whoever started the server. */
function closeInherited(): void {
  for (const name of readdirSync("/proc/self/fd")) {
    const fd = Number(name);
    if (fd < FIRST_OWN_FD) continue;
    try {
      const flags = /^flags:\s+([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"))?.[1];
      if (flags !== undefined && (Number.parseInt(flags, 8) & O_CLOEXEC) === 0) closeSync(fd);
    } catch {
      // The descriptor of the listing itself is gone already.
    }
  }
}

/** Signal a process that may have gone meanwhile. */
function strike(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // Gone already.
  }
}

/**
 * Until bubblewrap has set its sandbox up, its processes do not die with their parents. So the outer one is
 * stopped first (only when it really stands still it makes no more), then all below it taken, then itself.
 */
async function killHalfMade(outer: number): Promise<void> {
  strike(outer, "SIGSTOP");
  const deadline = Date.now() + STOP_MS;
  while (Date.now() < deadline) {
    const state = readProcess(outer)?.state;
    if (state === undefined || state === "T" || state === "Z") break;
    await sleep(1);
  }
  for (const { pid } of treeOf(outer, allProcesses()).reverse()) strike(pid, "SIGKILL");
}

async function kill(run: Run): Promise<void> {
  run.cancelled = true;
  const { child } = run;
  if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  // The first process inside takes all others with it; the outer one reports.
  if (run.initPid === undefined) await killHalfMade(child.pid);
  else strike(run.initPid, "SIGKILL");
  child.kill("SIGKILL");
}

function stop(id: number): void {
  const run = runs.get(id);
  if (run !== undefined) void kill(run);
}

/** bubblewrap's status lines: the first names the process that is init inside. */
function readStatus(run: Run, status: Readable): Promise<void> {
  return new Promise((resolve) => {
    let text = "";
    status.setEncoding("latin1");
    status.on("data", (chunk: string) => {
      text += chunk;
      const found = /"child-pid": (\d+)/.exec(text)?.[1];
      if (found === undefined || run.initPid !== undefined) return;
      run.initPid = Number(found);
      if (run.cancelled) strike(run.initPid, "SIGKILL");
      tell({ type: "started", id: run.id, pid: run.child?.pid ?? 0, initPid: run.initPid });
    });
    status.once("close", resolve);
    status.once("error", () => resolve());
  });
}

function onExit(run: Run, request: LaunchRequest, status: Promise<void>) {
  return async (code: number | null, signal: NodeJS.Signals | null) => {
    if (request.watch !== null && run.child?.pid !== undefined) watchdog.forget(run.child.pid);
    const late = new Promise((resolve) => setTimeout(resolve, STATUS_WAIT_MS).unref());
    await Promise.race([status, late]);
    runs.delete(run.id);
    keeper.forget(run.id);
    tell({ type: "exit", id: run.id, code, signal, limit: run.limit });
  };
}

/**
 * Fifty sandboxes that take all the CPU must not keep others from being started; what we start gets none of it. Only
 * root may, and not in every container.
 */
function goFirst(): void {
  try {
    setPriority(OWN_PRIORITY);
  } catch {
    // As urgent as everybody, then.
  }
}

/** Put the program where its limits are. It cannot have forked: it still waits for its options. */
async function confine(pid: number, run: Run, request: LaunchRequest): Promise<void> {
  await Promise.all(request.join.map((file) => writeFile(file, String(pid))));
  setPriority(pid, 0);
  await writeFile(`/proc/${pid}/oom_score_adj`, OOM_SCORE);
  if (request.watch === null) return;
  const onOver = (limit: LimitName) => {
    run.limit ??= limit;
    void kill(run);
  };
  watchdog.watch(pid, { ...request.watch, onOver });
}

/** What the program gets as its standard streams, and how to let go of our hold on it. */
async function openStreams({ id, terminal, uid, gid }: LaunchRequest) {
  if (hello === undefined) throw new Error("launch before hello");
  if (terminal === null) {
    const to = hello;
    const streams = await Promise.all([0, 1, 2].map((fd) => openStream(to, id, fd)));
    return {
      stdio: streams,
      letGo: () => {
        for (const stream of streams) stream.destroy();
      },
    };
  }
  const path = await keeper.open(hello, { id, size: terminal, uid, gid });
  const fd = openSync(path, constants.O_RDWR | constants.O_NOCTTY);
  return {
    stdio: [fd, fd, fd],
    letGo: () => {
      closeSync(fd);
      keeper.held(id);
    },
  };
}

async function start(run: Run, request: LaunchRequest): Promise<void> {
  const filter = openSync(request.filter, "r");
  let streams: Awaited<ReturnType<typeof openStreams>> | undefined;
  try {
    streams = await openStreams(request);
    if (run.cancelled) throw new Error("ended before it began");
    const child = spawn(request.file, request.args, {
      stdio: [...streams.stdio, "pipe", filter, "pipe"],
      // bubblewrap's own environment is readable inside as /proc/1/environ.
      env: {},
      cwd: "/",
      ...(request.uid === null || request.gid === null ? {} : { uid: request.uid, gid: request.gid }),
    });
    run.child = child;
    await new Promise((resolve, reject) => child.once("spawn", resolve).once("error", reject));
    child.on("error", () => undefined);
    const pipes: readonly unknown[] = child.stdio;
    const status = readStatus(run, pipes[5] as Readable);
    child.once("exit", onExit(run, request, status));
    const options = pipes[3] as Writable;
    options.on("error", () => undefined);
    await confine(child.pid ?? 0, run, request);
    options.end(request.options);
  } finally {
    closeSync(filter);
    streams?.letGo();
  }
}

async function launch(request: LaunchRequest): Promise<void> {
  const run: Run = { id: request.id, child: undefined, initPid: undefined, limit: null, cancelled: false };
  runs.set(request.id, run);
  try {
    await start(run, request);
  } catch (error) {
    tell({ type: "failed", id: request.id, message: error instanceof Error ? error.message : String(error) });
    await kill(run);
    keeper.close(request.id);
    if (run.child?.pid === undefined) runs.delete(request.id);
  }
}

/** The server is gone, or bids us go: nothing of ours may outlive it. */
async function farewell(): Promise<void> {
  const deadline = Date.now() + FAREWELL_MS;
  while (runs.size > 0 && Date.now() < deadline) {
    await Promise.all([...runs.values()].map(kill));
    await sleep(2);
  }
  for (const info of allProcesses().values()) {
    if (info.session === process.pid && info.pid !== process.pid) strike(info.pid, "SIGKILL");
  }
  process.exit(0);
}

closeInherited();
goFirst();
// A Ctrl+C in the terminal is the server's to handle: it decides when sandboxes end.
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => undefined);
process.on("disconnect", () => void farewell());
process.on("uncaughtException", (error) => {
  process.stderr.write(`${error.stack}\n`);
  void farewell();
});
process.stderr.on("error", () => undefined);
process.on("message", (message: ToLauncher) => {
  if (message.type === "hello") hello = message;
  else if (message.type === "launch") void launch(message.request);
  else if (message.type === "resize") keeper.resize(message.id, message.size);
  else stop(message.id);
});
tell({ type: "ready", pid: process.pid, cgroup: readFileSync("/proc/self/cgroup", "latin1") });
