import { spawnSync } from "node:child_process";
import { lstat, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Jail } from "#sandbox";
import type { FsDirectory } from "#sandbox/engines/fs/directory.ts";
import { FsEngine } from "#sandbox/engines/fs/engine.ts";
import { specFor } from "#sandbox/testing/harness.ts";
import { type HostileDirectory, openHostileDirectory } from "../support/canaries.ts";

const MIB = 1024 * 1024;
const QUOTA = { bytes: 64 * MIB, files: 2000, fileBytes: MIB };

let hostile: HostileDirectory;
let engine: FsEngine;
let directory: FsDirectory;
let jail: Jail;
beforeEach(async () => {
  hostile = await openHostileDirectory();
  engine = new FsEngine();
  directory = await engine.start({ root: hostile.work, quota: QUOTA });
  jail = await Jail.open(hostile.work);
});
afterEach(async () => {
  await jail.close();
  await engine.close();
  await hostile[Symbol.asyncDispose]();
});

describe("[SB-fs] what only looks like a file", () => {
  it("is not waited for: FIFOs, sockets and devices, as themselves and deep in a tree", async () => {
    const { stdout } = await hostile.inside(`
      const fs = require("fs"), net = require("net"), { execFileSync } = require("child_process");
      fs.mkdirSync("/work/tree/deep", { recursive: true });
      for (const dir of ["/work", "/work/tree/deep"]) {
        execFileSync("mkfifo", [dir + "/fifo"]);
        fs.writeFileSync(dir + "/plain", "plain");
      }
      const denied = [];
      for (const [name, ...device] of [["zero", "c", "1", "5"], ["mem", "c", "1", "1"], ["disk", "b", "254", "0"], ["tty", "c", "5", "0"]]) {
        try { execFileSync("mknod", ["/work/" + name, ...device], { stdio: "ignore" }); } catch { denied.push(name); }
      }
      const server = net.createServer().listen("/work/tree/deep/socket", () => {
        fs.linkSync("/work/tree/deep/socket", "/work/socket");
        console.log(JSON.stringify(denied));
        process.exit(0);
      });`);
    expect(JSON.parse(stdout)).toEqual(["zero", "mem", "disk", "tty"]);
    for (const name of ["fifo", "socket", "tree/deep/fifo", "tree/deep/socket"]) {
      await expect(directory.read(name)).rejects.toMatchObject({ code: "Forbidden" });
      await expect(directory.copy(name, "x")).rejects.toMatchObject({ code: "Forbidden" });
      await expect(directory.list(name)).rejects.toMatchObject({ code: "Conflict" });
      await expect(directory.write(`${name}/x`, Buffer.from("x"))).rejects.toMatchObject({
        code: "Conflict",
      });
      expect(await directory.stat(name)).toMatchObject({ kind: "other", size: 0 });
    }
    const walked = await jail.walk({ maxEntries: 100, maxDepth: 10 });
    expect(walked.skipped.map(({ path, reason }) => `${path}:${reason}`).sort()).toEqual([
      "fifo:fifo",
      "socket:socket",
      "tree/deep/fifo:fifo",
      "tree/deep/socket:socket",
    ]);
    expect(await directory.copy("tree", "copy")).toEqual({ entries: 3, bytes: 5, skipped: 2 });
    await directory.write("fifo", Buffer.from("a file now"));
    expect((await directory.read("fifo")).content.toString()).toBe("a file now");
    await directory.move("tree/deep/fifo", "moved");
    for (const { name } of await directory.list("")) await directory.remove(name);
    expect(await readdir(hostile.work)).toEqual([]);
  });

  it.runIf(spawnSync("perl", ["-e", "1"]).status === 0)(
    "is not waited for: a file that a program has taken a lease on",
    async () => {
      const { opened, slot, work } = hostile;
      // F_SETLEASE (1024) of fcntl.h: who opens such a file waits until its holder gives it up, or 45 s.
      const script = `use Fcntl; $SIG{IO} = "IGNORE"; $| = 1; open(F, "+>", "/work/leased") or die; print F "leased";
        close F; open(F, "<", "/work/leased") or die; fcntl(F, 1024, F_RDLCK) or print "refused: $!";
        open(G, "+<", "/work/other") or die; fcntl(G, 1024, F_WRLCK) or print "refused: $!"; print "held\\n"; sleep 1000;`;
      await writeFile(join(work, "other"), "other");
      const { uid, gid } = slot;
      if (uid !== null && gid !== null) spawnSync("chown", [`${uid}:${gid}`, join(work, "other")]);
      const mounts = [{ source: work, target: "/work", mode: "rw" as const }];
      const holder = await opened.sandboxes.start(specFor(slot, ["perl", "-e", script], { mounts }));
      holder.stderr.resume();
      const said = await new Promise((resolve) =>
        holder.stdout.once("data", (data) => resolve(String(data))),
      );
      expect(said).toBe("held\n");
      await expect(directory.read("other")).rejects.toMatchObject({ code: "Conflict" });
      expect((await directory.read("leased")).content.toString()).toBe("leased");
      await directory.write("other", Buffer.from("ours"));
      expect((await directory.read("other")).content.toString()).toBe("ours");
      await holder.kill();
    },
  );
});

describe("[SB-fs] too much of everything", () => {
  it("100,000 files are counted no further than the quota, walked within bounds, and removed", async () => {
    await hostile.inside(`
      const fs = require("fs");
      for (let dir = 0; dir < 100; dir += 1) {
        fs.mkdirSync("/work/many/" + dir, { recursive: true });
        for (let file = 0; file < 1000; file += 1) fs.closeSync(fs.openSync("/work/many/" + dir + "/" + file, "w"));
      }`);
    const usage = await directory.usage();
    expect(usage.complete).toBe(false);
    expect(usage.files).toBeLessThan(QUOTA.files + 100);
    await expect(directory.write("one-more", Buffer.from("x"))).rejects.toMatchObject({
      code: "QuotaExceeded",
    });
    await expect(directory.mkdir("one-more")).rejects.toMatchObject({ code: "QuotaExceeded" });
    await expect(directory.copy("many/1", "copy")).rejects.toMatchObject({ code: "QuotaExceeded" });
    const walked = await jail.walk({ maxEntries: 5000, maxDepth: 10 });
    expect(walked).toMatchObject({ truncated: true });
    expect(walked.entries).toHaveLength(5000);
    await expect(directory.list("many/1", 500)).rejects.toMatchObject({ code: "PayloadTooLarge" });
    // Only what is there may be told of: not one has been removed by looking.
    expect(await readdir(join(hostile.work, "many"))).toHaveLength(100);
    expect(await directory.remove("many/0")).toBe(true);
    await hostile.slot.release();
    await expect(lstat(hostile.slot.dir)).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("10,000 directories inside each other are refused, walked within bounds, and removed", async () => {
    await hostile.inside(`
      const fs = require("fs");
      fs.mkdirSync("/work/deep");
      process.chdir("/work/deep");
      for (let depth = 0; depth < 10_000; depth += 1) { fs.mkdirSync("d"); process.chdir("d"); }
      fs.writeFileSync("bottom", "x");
      fs.symlinkSync("/etc", "link");`);
    expect(await directory.usage()).toMatchObject({ complete: false });
    await expect(directory.write("x", Buffer.from("x"))).rejects.toMatchObject({ code: "QuotaExceeded" });
    await expect(directory.copy("deep", "copy")).rejects.toMatchObject({ code: "QuotaExceeded" });
    const walked = await jail.walk({ maxEntries: 100_000, maxDepth: 64 });
    expect(walked.entries).toHaveLength(64);
    expect(walked.skipped.map(({ reason }) => reason)).toEqual(["depth"]);
    await expect(directory.read("deep/".repeat(2000))).rejects.toMatchObject({ code: "InvalidParams" });
    const watch = await directory.watch({ onChange: () => undefined, onError: () => undefined });
    expect(watch).toMatchObject({ mode: "polling", directories: 0 });
    await watch.close();
    expect(await directory.remove("deep")).toBe(true);
    expect(await readdir(hostile.work)).toEqual([]);
    expect(await directory.usage()).toEqual({ bytes: 0, files: 0, complete: true });
  });

  it("files of a terabyte that take no room count as a terabyte, and are not read or copied", async () => {
    await hostile.inside(`
      const fs = require("fs");
      fs.mkdirSync("/work/sparse");
      fs.closeSync(fs.openSync("/work/sparse/huge", "w"));
      fs.truncateSync("/work/sparse/huge", 2 ** 40);
      fs.linkSync("/work/sparse/huge", "/work/sparse/again");
      fs.writeFileSync("/work/growing", "x");`);
    expect((await lstat(join(hostile.work, "sparse/huge"))).blocks).toBeLessThan(100);
    expect(await directory.usage()).toEqual({ bytes: 2 ** 40 + 1, files: 4, complete: true });
    await expect(directory.write("x", Buffer.from("x"))).rejects.toMatchObject({ code: "QuotaExceeded" });
    await expect(directory.read("sparse/huge")).rejects.toMatchObject({ code: "Forbidden" });
    await directory.remove("sparse/again");
    await expect(directory.read("sparse/huge")).rejects.toMatchObject({ code: "PayloadTooLarge" });
    await expect(jail.read("sparse/huge", 1000)).rejects.toMatchObject({ code: "PayloadTooLarge" });
    const bounds = { entries: 10, bytes: 2 ** 41, fileBytes: 1000, deadline: Date.now() + 60_000 };
    await expect(jail.copy("sparse", "copy", bounds)).rejects.toMatchObject({ code: "PayloadTooLarge" });
    await expect(
      jail.copy("sparse", "copy", { ...bounds, bytes: 1000, fileBytes: 2 ** 41 }),
    ).rejects.toMatchObject({
      code: "QuotaExceeded",
    });
    await expect(
      jail.copy("sparse", "copy", { ...bounds, fileBytes: 2 ** 41, deadline: Date.now() - 1 }),
    ).rejects.toMatchObject({ code: "Timeout" });
    await expect(jail.copy("sparse", "copy", { ...bounds, entries: 1 })).rejects.toMatchObject({
      code: "QuotaExceeded",
    });
    expect((await readdir(hostile.work)).sort()).toEqual(["growing", "sparse"]);
    await directory.remove("sparse");
    await directory.write("x", Buffer.from("x"));
  });

  it("one program may not write a file larger than its limit, sparse or not", async () => {
    const { opened, slot, work } = hostile;
    const script =
      "dd if=/dev/zero of=/work/full bs=1M count=3; dd if=/dev/zero of=/work/sparse bs=1 count=1 seek=3M; truncate -s 3M /work/cut; true";
    const mounts = [{ source: work, target: "/work", mode: "rw" as const }];
    const limits = { memoryBytes: 256 * MIB, processes: 16, fileBytes: 2 * MIB, tmpBytes: MIB };
    const running = await opened.sandboxes.start(
      specFor(slot, ["/bin/sh", "-c", script], { mounts, limits }),
    );
    running.stdout.resume();
    running.stderr.resume();
    await running.exited;
    for (const name of await readdir(work))
      expect((await lstat(join(work, name))).size).toBeLessThanOrEqual(2 * MIB);
    expect((await lstat(join(work, "full"))).size).toBe(2 * MIB);
  });
});
