import { execFileSync } from "node:child_process";
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { enterable } from "#platform/host/enterable.ts";
import { newInstanceName } from "./instance.ts";
import { firstUid, openRuntime } from "./runtime.ts";
import { Slots } from "./slots.ts";
import {
  makeTemporary,
  openForTest,
  shell,
  silent,
  specFor,
  type TestSandboxes,
  text,
} from "./testing/harness.ts";

const isRoot = process.getuid?.() === 0;

let opened: TestSandboxes;
beforeAll(async () => {
  opened = await openForTest({ slots: 2 });
});
afterAll(() => opened?.[Symbol.asyncDispose]());

describe("slots", () => {
  it("[MU-2] every holder gets a directory that nobody had before, closed to everybody else", async () => {
    const { slots } = opened.sandboxes;
    const dirs = new Set<string>();
    for (let round = 0; round < 3; round += 1) {
      const slot = await slots.acquire();
      dirs.add(slot.dir);
      expect((await stat(slot.dir)).mode & 0o777).toBe(0o700);
      const work = await slot.makeDir("work");
      expect((await stat(work)).uid).toBe(slot.uid ?? process.getuid?.());
      expect(Buffer.byteLength(slot.socketPath)).toBeLessThan(108);
      await slot.release();
      await slot.release();
    }
    expect(dirs.size).toBe(3);
    for (const dir of dirs) await expect(stat(dir)).rejects.toThrow(/ENOENT/);
    expect(slots.inUse).toBe(0);
  });

  it("hands places out in the order they are asked for, and forgets who gave up", async () => {
    const { slots } = opened.sandboxes;
    const held = await Promise.all([slots.acquire(), slots.acquire()]);
    const order: string[] = [];
    const abort = new AbortController();
    const note = async (name: string, signal?: AbortSignal) => {
      const slot = await slots.acquire(signal);
      order.push(name);
      return slot;
    };
    const first = note("first");
    const gaveUp = slots.acquire(abort.signal);
    const third = note("third", new AbortController().signal);
    abort.abort();
    await expect(gaveUp).rejects.toMatchObject({ code: "Cancelled" });
    await expect(slots.acquire(AbortSignal.abort())).rejects.toMatchObject({ code: "Cancelled" });
    expect(slots.inUse).toBe(2);
    await held[0].release();
    await (await first).release();
    await held[1].release();
    await (await third).release();
    expect(order).toEqual(["first", "third"]);
  });

  it("[MU-6] release removes whatever was left, follows no link, and is stopped by no permission", async () => {
    const outside = await mkdtemp(join(tmpdir(), "cds-outside-"));
    await writeFile(join(outside, "keep"), "kept");
    const dataDir = await makeTemporary("/dev/shm");
    const fast = await openForTest({ dataDir });
    const slot = await fast.sandboxes.slots.acquire();
    const work = await slot.makeDir("work");
    await symlink(outside, join(work, "link"));
    await symlink(join(outside, "keep"), join(work, "file-link"));
    const mess = `
      mkdir many locked; cd many; i=0; while [ $i -lt 10000 ]; do : > $i; i=$((i+1)); done; cd ..
      i=0; while [ $i -lt 400 ]; do mkdir -p d/d/d/d/d && cd d/d/d/d/d; i=$((i+1)); done; cd /work
      mkfifo pipe; : > locked/inside; mkdir locked/deeper; : > locked/deeper/file; printf x > "$(printf 'odd\\377\\n')"
      chmod 0 locked/deeper locked/inside; chmod 0555 locked; chmod 0 many`;
    const outcome = await shell(fast.sandboxes, mess, {
      slot,
      cwd: "/work",
      mounts: [{ source: work, target: "/work", mode: "rw" }],
    });
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    await slot.release();
    await expect(stat(slot.dir)).rejects.toThrow(/ENOENT/);
    expect(await readFile(join(outside, "keep"), "utf8")).toBe("kept");
    await fast[Symbol.asyncDispose]();
    for (const path of [outside, dataDir]) await rm(path, { recursive: true });
  });

  it("a slot that cannot be cleared is not given to anybody else", async () => {
    const dataDir = await makeTemporary();
    const runtime = await openRuntime({ dataDir, instance: newInstanceName(), slots: 1 });
    const endAll = () => Promise.reject(new Error("something hangs"));
    const slots = new Slots({ runtime, size: 1, prefix: "x-", log: silent, endAll });
    const slot = await slots.acquire();
    const waiting = slots.acquire();
    await slot.release();
    const late = new Promise((resolve) => setTimeout(resolve, 50, "late"));
    expect(await Promise.race([waiting, late])).toBe("late");
    await slots.close();
    await expect(waiting).rejects.toMatchObject({ code: "Unavailable" });
    await expect(slots.acquire()).rejects.toMatchObject({ code: "Unavailable" });
    await runtime.close();
    await rm(dataDir, { recursive: true });
  });
});

describe("a server's directory that is not there", () => {
  it("costs no slot: neither one that could not be opened nor one that could not be removed", async () => {
    const dataDir = await makeTemporary();
    const runtime = await openRuntime({ dataDir, instance: newInstanceName(), slots: 1 });
    const told: string[] = [];
    const log = {
      ...silent,
      error: (_: object, text: string) => told.push(text),
    } as unknown as typeof silent;
    // Without users of their own, as where the server is an ordinary user's.
    const plain = { ...runtime, identityOf: () => null };
    const slots = new Slots({ runtime: plain, size: 1, prefix: "x-", log, endAll: async () => undefined });
    const held = await slots.acquire();
    expect(held).toMatchObject({ uid: null, gid: null });
    const waiting = slots.acquire();
    await rename(runtime.dir, `${runtime.dir}.aside`);
    await held.release();
    await expect(waiting).rejects.toThrow(/ENOENT/);
    expect(told).toEqual(["a slot's directory could not be removed"]);
    await rename(`${runtime.dir}.aside`, runtime.dir);
    const next = await slots.acquire();
    expect(next.index).toBe(held.index);
    await slots.close();
    await runtime.close();
    await rm(dataDir, { recursive: true });
  });
});

describe("the runtime directory", () => {
  it("is made only where nobody else has put something", async () => {
    const dataDir = await makeTemporary();
    await mkdir(join(dataDir, "elsewhere"));
    await symlink("elsewhere", join(dataDir, "sandbox"));
    const opening = openRuntime({ dataDir, instance: newInstanceName(), slots: 1 });
    await expect(opening).rejects.toMatchObject({ code: "EngineUnavailable" });
    await rm(dataDir, { recursive: true });
  });

  it("is made and removed by many servers at once that come and go", async () => {
    const dataDir = await makeTemporary();
    const comeAndGo = async () => {
      for (let round = 0; round < 20; round += 1) {
        const runtime = await openRuntime({ dataDir, instance: newInstanceName(), slots: 1 });
        expect((await stat(join(runtime.dir, ".."))).mode & 0o777).toBe(isRoot ? 0o711 : 0o700);
        await runtime.close();
      }
    };
    await Promise.all(Array.from({ length: 4 }, comeAndGo));
    expect(await readdir(dataDir)).toEqual([]);
    await rm(dataDir, { recursive: true });
  });

  it("gives slots users that nobody has, and none where there are no others", () => {
    const map = (text: string) => () => text;
    expect(firstUid(4, map("0 0 4294967295"))).toBe(1_900_000_000);
    expect(firstUid(4, map("0 1000 1\n1 100000 65536"))).toBe(59_996);
    expect(() => firstUid(4, map("0 1000 1"))).toThrow(/without other user ids/);
    expect(() => firstUid(4, () => undefined)).toThrow(/without other user ids/);
    expect(() => firstUid(4, (path) => (path.endsWith("uid_map") ? "0 0 4294967295" : "0 0 1"))).toThrow();
  });

  it("removes what dead servers left, and nothing of living or unknown ones", async () => {
    const dataDir = await makeTemporary();
    const base = join(dataDir, "sandbox");
    const [namespace, pid, started] = newInstanceName().split("-");
    const dead = `${namespace}-${pid}-${Number(started) - 1}-1`;
    const alive = `${namespace}-${pid}-${started}-999`;
    const foreign = `1-${pid}-${started}-1`;
    const sockets = await mkdtemp(join(tmpdir(), `cds-${dead}-`));
    for (const name of [dead, alive, foreign, "something"])
      await mkdir(join(base, name, "x"), { recursive: true });
    await writeFile(join(base, dead, "sockets"), sockets);
    await writeFile(join(base, dead, "x", "file"), "");
    await chmod(base, 0o711);
    const again = await openForTest({ dataDir });
    const left = await readdir(base);
    expect(left).not.toContain(dead);
    expect(left).toEqual(expect.arrayContaining([alive, foreign, "something"]));
    await expect(stat(sockets)).rejects.toThrow(/ENOENT/);
    await again[Symbol.asyncDispose]();
    await rm(dataDir, { recursive: true });
  });

  it("works below a very long path, whose sockets must stand elsewhere", async () => {
    const top = await makeTemporary();
    const dataDir = join(top, "x".repeat(100), "y".repeat(100));
    const long = await openForTest({ dataDir });
    const slot = await long.sandboxes.slots.acquire();
    expect(Buffer.byteLength(slot.socketPath)).toBeLessThan(108);
    expect((await shell(long.sandboxes, "echo ok", { slot })).stdout).toBe("ok\n");
    await long[Symbol.asyncDispose]();
    await expect(stat(join(slot.socketPath, ".."))).rejects.toThrow(/ENOENT/);
    await rm(top, { recursive: true });
  });

  it.runIf(isRoot)(
    "stands where every slot's user can reach it, even when the data directory is locked away",
    async () => {
      const locked = await mkdtemp(join(tmpdir(), "cds-locked-"));
      await mkdir(join(locked, "tool", "lib"), { recursive: true, mode: 0o700 });
      await writeFile(join(locked, "tool", "run"), "#!/bin/sh\ncat $(dirname $0)/lib/data\n", {
        mode: 0o700,
      });
      await writeFile(join(locked, "tool", "lib", "data"), "from a locked place\n", { mode: 0o600 });
      await symlink("run", join(locked, "tool", "alias"));
      const hidden = await openForTest({ dataDir: join(locked, "data") });
      const { sandboxes } = hidden;
      const slot = await sandboxes.slots.acquire();
      expect(slot.dir.startsWith("/var/lib/cyberdevstudio/")).toBe(true);
      const someone = { uid: slot.uid ?? 0, gid: slot.gid ?? 0 };
      expect(enterable(slot.dir, someone)).toBe(true);
      const running = await sandboxes.start(
        specFor(slot, ["/tool/alias"], {
          mounts: [{ source: join(locked, "tool"), target: "/tool", mode: "ro" }],
        }),
      );
      expect([await text(running.stdout), await text(running.stderr)]).toEqual(["from a locked place\n", ""]);
      const copy = await sandboxes.reachable(join(locked, "tool"));
      expect(await sandboxes.reachable(join(locked, "tool"))).toBe(copy);
      expect(await sandboxes.reachable("/usr/bin/env")).toBe(
        execFileSync("realpath", ["/usr/bin/env"], { encoding: "utf8" }).trim(),
      );
      const elsewhere = await mkdtemp("/dev/shm/cds-locked-");
      await writeFile(join(elsewhere, "data"), "from another disk", { mode: 0o644 });
      const copied = await sandboxes.reachable(join(elsewhere, "data"));
      expect(copied.startsWith(sandboxes.directory)).toBe(true);
      expect(await readFile(copied, "utf8")).toBe("from another disk");
      await rm(elsewhere, { recursive: true });
      await expect(sandboxes.reachable(join(locked, "nothing"))).rejects.toThrow(/ENOENT/);
      await hidden[Symbol.asyncDispose]();
      await rm(locked, { recursive: true });
    },
  );
});
