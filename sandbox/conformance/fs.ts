import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import type { FsDirectory } from "../engines/fs/directory.ts";
import { FsEngine, type FsSpec } from "../engines/fs/engine.ts";
import { countOf, recordSpans } from "../testing/spans.ts";
import type { Feature, Fixture, FixtureMaker } from "./features.ts";
import { refused } from "./refused.ts";

const QUOTA = { bytes: 10_000, files: 50, fileBytes: 5000 };
const NO_PROGRAM = "it starts no program and holds no more than the one file that is read or written";

/** An engine and where its directories are made. */
interface Place {
  readonly engine: FsEngine;
  readonly top: string;
  /** A new directory in use, ended with the engine. */
  use(more?: Partial<FsSpec>): Promise<FsDirectory & { readonly root: string }>;
}

function openPlace(engine: FsEngine, top: string): Place {
  return {
    engine,
    top,
    async use(more = {}) {
      const root = await mkdtemp(join(top, "dir-"));
      return Object.assign(await engine.start({ root, quota: QUOTA, ...more }), { root });
    },
  };
}

function answers({
  use,
  engine,
}: Place): Pick<Fixture["scenarios"], "work" | "failure" | "input" | "limits"> {
  return {
    async work() {
      await using directory = await use();
      const content = Buffer.concat([
        Buffer.from("Grüße\n"),
        Buffer.from(Array.from({ length: 256 }, (_, n) => n)),
      ]);
      await directory.write("ä/ö.bin", content, { executable: true });
      await directory.copy("ä", "kopie");
      await directory.move("kopie/ö.bin", "ü");
      const { content: back, executable } = await directory.read("ü");
      assert.deepEqual([back, executable], [content, true]);
      assert.deepEqual(await readFile(join(directory.root, "ä/ö.bin")), content);
      assert.deepEqual(
        (await directory.list("")).map(({ name }) => name),
        ["kopie", "ä", "ü"].sort(),
      );
    },
    async failure() {
      await using directory = await use();
      await directory.mkdir("dir");
      await refused(() => directory.read("none"), "NotFound");
      await refused(() => directory.read("dir"), "Conflict");
      await refused(() => directory.write("dir", Buffer.from("x")), "Conflict");
      await refused(() => directory.copy("none", "x"), "NotFound");
      await directory.write("dir/file", Buffer.from("fine"));
      assert.equal((await directory.read("dir/file")).content.toString(), "fine");
    },
    async input() {
      await using directory = await use();
      for (const path of ["..", "/etc/passwd", "a/../../b", "a\0b", "x".repeat(256), "\ud800"]) {
        await refused(() => directory.read(path), "InvalidParams");
        await refused(() => directory.write(path, Buffer.from("x")), "InvalidParams");
        await refused(() => directory.move(path, "x"), "InvalidParams");
      }
      await refused(() => engine.start({ root: "relative", quota: QUOTA }), "InvalidParams");
      assert.deepEqual(await readdir(directory.root), []);
    },
    async limits() {
      for (const name of ["bytes", "files", "fileBytes"]) {
        for (const value of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
          await refused(() => use({ quota: { ...QUOTA, [name]: value } }), "InvalidParams");
        }
      }
    },
  };
}

type Bound = "memory" | "time" | "output" | "processes" | "disk";

function bounds({ use }: Place): Pick<Fixture["scenarios"], Bound> {
  return {
    memory: NO_PROGRAM,
    processes: NO_PROGRAM,
    async time() {
      await using directory = await use();
      await directory.mkdir("busy");
      // Somebody adds faster than anybody can remove: what is asked ends all the same.
      const adder = new Worker(
        `const fs = require("fs"), dir = require("worker_threads").workerData; let n = 0;
         for (;;) try { fs.writeFileSync(dir + "/" + n++ % 500, "") } catch {}`,
        { eval: true, workerData: join(directory.root, "busy") },
      );
      await once(adder, "online");
      await Promise.allSettled([directory.usage(), directory.copy("busy", "copy"), directory.list("busy")]);
      await adder.terminate();
      assert.equal(await directory.remove("busy"), true);
    },
    async output() {
      await using directory = await use();
      await writeFile(join(directory.root, "big"), Buffer.alloc(6000));
      for (let index = 0; index < 20; index += 1) await writeFile(join(directory.root, `f${index}`), "");
      await refused(() => directory.read("big"), "PayloadTooLarge");
      await refused(() => directory.read("f1/.."), "InvalidParams");
      await refused(() => directory.list("", 20), "PayloadTooLarge");
    },
    async disk() {
      await using directory = await use();
      await refused(() => directory.write("x", Buffer.alloc(5001)), "PayloadTooLarge");
      await directory.write("a", Buffer.alloc(5000));
      await directory.copy("a", "b");
      await refused(() => directory.write("c", Buffer.alloc(1)), "QuotaExceeded");
      await refused(() => directory.copy("a", "c"), "QuotaExceeded");
      await refused(() => directory.mkdir("d/".repeat(50)), "QuotaExceeded");
      assert.deepEqual(await directory.usage(), { bytes: 10_000, files: 2, complete: true });
    },
  };
}

type Apart = "network" | "host" | "environment" | "tenants";

function walls({ use, top }: Place): Pick<Fixture["scenarios"], Apart> {
  return {
    network: "it starts no program and opens no connection",
    environment: "it starts no program that could see one",
    async host() {
      const outside = await mkdtemp(join(top, "outside-"));
      await writeFile(join(outside, "secret"), "secret");
      await using directory = await use();
      await symlink(outside, join(directory.root, "link"));
      await mkdir(join(directory.root, "dir"));
      await symlink("../../../../../../etc", join(directory.root, "dir/up"));
      for (const path of ["link/secret", "dir/up/passwd"]) {
        for (const act of [
          () => directory.read(path),
          () => directory.write(path, Buffer.from("x")),
          () => directory.copy(path, "x"),
          () => directory.remove(path),
        ]) {
          await assert.rejects(act, { name: "AppError" });
        }
      }
      assert.equal(await directory.remove("link"), true);
      assert.equal(await readFile(join(outside, "secret"), "utf8"), "secret");
    },
    async tenants() {
      await using one = await use();
      await using other = await use();
      await one.write("mine", Buffer.from("one"));
      assert.deepEqual(await other.list(""), []);
      await symlink(one.root, join(other.root, "theirs"));
      await assert.rejects(() => other.list("theirs"), { name: "AppError" });
      await assert.rejects(() => other.read("theirs/mine"), { name: "AppError" });
      assert.deepEqual(await other.usage(), { bytes: 0, files: 1, complete: true });
    },
  };
}

function lifetime({ use, engine }: Place): Pick<Fixture["scenarios"], "cancel" | "list" | "counted"> {
  return {
    async cancel() {
      const directory = await use();
      let told = 0;
      const watch = await directory.watch({
        debounceMs: 1,
        onChange: () => {
          told += 1;
        },
        onError: () => undefined,
      });
      const writing = directory.write("file", Buffer.from("all of it"));
      await directory[Symbol.asyncDispose]();
      await watch.closed;
      await writing;
      // Begun before, so it is there in full; nothing can be begun afterwards.
      assert.equal(await readFile(join(directory.root, "file"), "utf8"), "all of it");
      await refused(() => directory.write("file", Buffer.from("x")), "Unavailable");
      const before = told;
      await writeFile(join(directory.root, "file"), "changed");
      assert.equal(told, before);
    },
    async list() {
      const pair = [await use(), await use()];
      const listed = () => engine.list().filter((one) => pair.some(({ id }) => id === one.id));
      assert.deepEqual(listed(), pair);
      await pair[0]?.[Symbol.asyncDispose]();
      assert.deepEqual(listed(), [pair[1]]);
      await pair[1]?.[Symbol.asyncDispose]();
      assert.deepEqual(listed(), []);
    },
    async counted() {
      const names = [
        "start",
        "write",
        "read",
        "list",
        "stat",
        "mkdir",
        "move",
        "copy",
        "remove",
        "usage",
        "watch",
      ];
      const before = await Promise.all(names.map((name) => countOf("fs", name)));
      const spans = recordSpans();
      try {
        await using directory = await use();
        await directory.write("a/b", Buffer.from("x"));
        await directory.read("a/b");
        await directory.list("a");
        await directory.stat("a");
        await directory.mkdir("c");
        await directory.move("a", "c/a");
        await directory.copy("c", "d");
        await directory.remove("d");
        await directory.usage();
        await directory.watch({ onChange: () => undefined, onError: () => undefined });
        await refused(() => directory.read("none"), "NotFound");
        const after = await Promise.all(names.map((name) => countOf("fs", name)));
        for (const [index, name] of names.entries()) {
          const counted = (after[index] ?? 0) - (before[index] ?? 0);
          assert.equal(counted, name === "read" ? 2 : 1, name);
          const seen = spans.finished().filter((span) => span.name === `sandbox.fs.${name}`);
          assert.equal(seen.length, counted, name);
        }
      } finally {
        await spans.stop();
      }
    },
  };
}

/** Descriptors of this process that lead to `path` or below. */
async function descriptorsTo(path: string): Promise<string[]> {
  const all = await readdir("/proc/self/fd");
  const targets = await Promise.all(all.map((name) => readlink(`/proc/self/fd/${name}`).catch(() => "")));
  return targets.filter((target) => target.startsWith(path));
}

/** In engines of their own, which they close. */
function ends(top: string): Pick<Fixture["scenarios"], "leftovers" | "closed"> {
  return {
    async leftovers() {
      const own = openPlace(new FsEngine(), top);
      const directory = await own.use();
      await directory.write("a/b", Buffer.from("x"));
      await directory.watch({ onChange: () => undefined, onError: () => undefined });
      assert.notDeepEqual(await descriptorsTo(directory.root), []);
      await own.engine.close();
      assert.deepEqual(await descriptorsTo(directory.root), []);
      assert.deepEqual((await readdir(directory.root, { recursive: true })).sort(), ["a", "a/b"]);
    },
    async closed() {
      const own = openPlace(new FsEngine(), top);
      await own.use();
      await own.engine.close();
      await refused(() => own.use(), "Unavailable");
    },
  };
}

export const fsFixture: FixtureMaker = {
  name: "fs",
  async open() {
    const top = await mkdtemp(join(tmpdir(), "cds-conformance-fs-"));
    const engine = new FsEngine();
    const place = openPlace(engine, top);
    const scenarios: Record<Feature, (() => Promise<void>) | string> = {
      ...answers(place),
      ...bounds(place),
      ...walls(place),
      ...lifetime(place),
      ...ends(top),
    };
    return {
      engine,
      availability: await engine.probe(),
      scenarios,
      async [Symbol.asyncDispose]() {
        await engine.close();
        await rm(top, { recursive: true, force: true });
      },
    };
  },
};
