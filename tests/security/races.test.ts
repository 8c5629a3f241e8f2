import { once } from "node:events";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, expect, it } from "vitest";
import { Jail, type SandboxProcess } from "#sandbox";
import { FsEngine } from "#sandbox/engines/fs/engine.ts";
import { NODE, specFor } from "#sandbox/testing/harness.ts";
import {
  type Canaries,
  type HostileDirectory,
  openHostileDirectory,
  plantCanaries,
  SECRET,
} from "../support/canaries.ts";

/** How long the race goes on; at least until both sides have won often enough to call it one. */
const RACE_MS = Number(process.env.CDS_RACE_SECONDS ?? 30) * 1000;
const LATEST_MS = 100_000;
const OFTEN = 10;
const QUOTA = { bytes: 1 << 24, files: 20_000, fileBytes: 1 << 16 };

let canaries: Canaries;
let hostile: HostileDirectory;
let before: Record<string, string>;
beforeEach(async () => {
  canaries = await plantCanaries();
  before = await canaries.look();
  hostile = await openHostileDirectory();
});
afterEach(async () => {
  await hostile[Symbol.asyncDispose]();
  await canaries[Symbol.asyncDispose]();
});

/**
 * Swaps /work/<name> between a directory and a link to the canaries as fast as it can, and says how often. What the
 * host makes or removes in between must not end the game.
 */
const SWAP = `
const fs = require("fs"), { NAME: name, TARGET: target } = process.env;
const pause = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
const attempt = (act) => { try { act(); return true; } catch { return false; } };
const [place, spare, link] = ["", "-spare", "-link"].map((end) => "/work/" + name + end);
const fill = () => { attempt(() => fs.mkdirSync(spare + "/inner", { recursive: true })); for (const file of ["secret", "inner/file"]) attempt(() => fs.writeFileSync(spare + "/" + file, "inside")); };
let swaps = 0;
for (;;) {
  if (!fs.existsSync(spare + "/secret")) fill();
  attempt(() => fs.symlinkSync(target, link));
  if (!attempt(() => fs.renameSync(place, spare))) attempt(() => fs.rmSync(place, { recursive: true }));
  if (attempt(() => fs.renameSync(link, place))) swaps += 1;
  attempt(() => fs.unlinkSync(place));
  attempt(() => fs.renameSync(spare, place));
  // The host shall get somewhere as well, on a machine with few processors.
  if (swaps % 10 === 0) pause();
  if (swaps % 100 === 99) { swaps += 1; fs.writeSync(1, swaps + "\\n"); }
}`;

/** Swaps a file for a link, a hard link and a FIFO. */
const SWAP_FILE = `
const fs = require("fs"), { TARGET: target } = process.env;
const pause = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
const attempt = (act) => { try { act(); return true; } catch { return false; } };
require("child_process").execFileSync("mkfifo", ["/work/a-fifo"]);
let swaps = 0;
for (;;) {
  for (const make of [() => fs.symlinkSync(target + "/secret", "/work/new"), () => fs.writeFileSync("/work/new", "inside"), () => fs.linkSync("/work/a-fifo", "/work/new")]) {
    attempt(make);
    if (attempt(() => fs.renameSync("/work/new", "/work/file"))) swaps += 1;
    attempt(() => fs.unlinkSync("/work/new"));
  }
  if (swaps % 9 === 0) pause();
  if (swaps % 99 === 0) fs.writeSync(1, swaps + "\\n");
}`;

interface Swapper {
  readonly process: SandboxProcess;
  /** How often it has swapped so far. */
  swaps: number;
}

async function startSwapper(script: string, env: Record<string, string>): Promise<Swapper> {
  const { opened, slot, work } = hostile;
  const mounts = [
    { source: work, target: "/work", mode: "rw" as const },
    { source: process.execPath, target: NODE, mode: "ro" as const },
  ];
  const argv = [NODE, "--input-type=commonjs", "-e", script];
  const started = await opened.sandboxes.start(specFor(slot, argv, { mounts, env }));
  const swapper: Swapper = { process: started, swaps: 0 };
  const lines = createInterface({ input: started.stdout });
  lines.on("line", (line) => {
    swapper.swaps = Number(line);
  });
  started.stderr.resume();
  await once(lines, "line");
  return swapper;
}

/** What came of the attempts of one kind. */
type Tally = Record<"done" | "refused" | "escaped", number>;

it(
  "[SB-fs] nothing gets out while programs swap directories, files and links under every operation at once",
  async () => {
    await mkdir(join(hostile.work, "host"), { mode: 0o777 });
    const swappers = await Promise.all([
      startSwapper(SWAP, { NAME: "dir", TARGET: canaries.dir }),
      startSwapper(SWAP, { NAME: "victim", TARGET: canaries.dir }),
      startSwapper(SWAP_FILE, { TARGET: canaries.dir }),
    ]);
    const engine = new FsEngine();
    const { uid, gid } = hostile.slot;
    const owner = uid === null || gid === null ? {} : { owner: { uid, gid } };
    const directory = await engine.start({ root: hostile.work, quota: QUOTA, ...owner });
    await using jail = await Jail.open(hostile.work);
    let told = 0;
    const failures: unknown[] = [];
    await directory.watch({
      debounceMs: 20,
      onChange: () => {
        told += 1;
      },
      onError: (error) => {
        failures.push(error);
      },
    });
    const inside = (content: Buffer) => content.toString() === "inside";
    let round = 0;
    /** Each answers whether what it got is what lies inside. */
    const operations: Record<string, () => Promise<boolean>> = {
      "read through the directory": async () => inside((await directory.read("dir/secret")).content),
      "read deeper": async () => inside((await directory.read("dir/inner/file")).content),
      "read the file": async () => inside((await directory.read("file")).content),
      "list it": async () => !(await directory.list("dir")).some(({ name }) => name === "program"),
      "look at it": async () => (await directory.stat("dir/secret")).size !== SECRET.length,
      "write into it": () => directory.write("dir/new", Buffer.from("inside")).then(() => true),
      "make directories in it": () => directory.mkdir("dir/made/deeper").then(() => true),
      "move out of it": async () => {
        await directory.move("dir/secret", "host/moved");
        const held = inside((await directory.read("host/moved")).content);
        await directory.remove("host/moved");
        return held;
      },
      "move into it": () => directory.move("host/mine", "dir/empty/mine").then(() => true),
      "copy it": async () => {
        await directory.copy("dir", "host/copied");
        const names = (await directory.list("host/copied")).map(({ name }) => name);
        const secret = names.includes("secret")
          ? (await directory.read("host/copied/secret")).content
          : undefined;
        await directory.remove("host/copied");
        return !names.includes("program") && (secret === undefined || inside(secret));
      },
      "remove from it": async () => (await directory.remove("dir/program")) === false,
      "remove all of it": () => directory.remove("victim").then(() => true),
      "walk through it": async () => {
        const { entries } = await jail.walk({ maxEntries: 1000, maxDepth: 8 }, "dir");
        return !entries.some(({ path }) => path === "program");
      },
      "count it": () => directory.usage().then(() => true),
    };
    const tallies = new Map(
      Object.keys(operations).map((name) => [name, { done: 0, refused: 0, escaped: 0 } as Tally]),
    );
    const raced = () =>
      swappers.every(({ swaps }) => swaps > 1000) &&
      ["read through the directory", "read the file", "list it", "write into it", "walk through it"].every(
        (name) => {
          const { done = 0, refused = 0 } = tallies.get(name) ?? {};
          return done > OFTEN && refused > OFTEN;
        },
      );
    const [soonest, latest] = [Date.now() + RACE_MS, Date.now() + LATEST_MS];
    while (Date.now() < soonest || (!raced() && Date.now() < latest)) {
      round += 1;
      await writeFile(join(hostile.work, "host/mine"), "inside").catch(() => undefined);
      await Promise.all(
        Object.entries(operations).map(async ([name, operation]) => {
          const tally = tallies.get(name);
          if (tally === undefined) return;
          const outcome = await operation().catch((error: { name?: string }) => {
            if (error.name !== "AppError") failures.push([name, error]);
            return undefined;
          });
          tally[outcome === undefined ? "refused" : outcome ? "done" : "escaped"] += 1;
        }),
      );
    }
    await Promise.all(swappers.map(({ process }) => process.kill()));
    await engine.close();
    const summary = {
      round,
      told,
      swaps: swappers.map(({ swaps }) => swaps),
      ...Object.fromEntries(tallies),
    };
    expect(
      [...tallies.values()].reduce((total, { escaped }) => total + escaped, 0),
      JSON.stringify(summary),
    ).toBe(0);
    expect(failures).toEqual([]);
    expect(raced(), JSON.stringify(summary)).toBe(true);
    expect(told).toBeGreaterThan(0);
    expect(await canaries.look()).toEqual(before);
    for (const name of await readdir(join(hostile.work, "host"), { recursive: true })) {
      const content = await readFile(join(hostile.work, "host", name), "utf8").catch(() => "");
      expect(content).not.toContain(SECRET);
    }
  },
  LATEST_MS + RACE_MS + 60_000,
);
