import { execFile } from "node:child_process";
import { openSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { allProcesses, treeOf } from "../../process-tree.ts";
import { lastJson, makeReadableClone } from "../../testing/clone.ts";
import {
  openForTest,
  run,
  runNode,
  shell,
  specFor,
  type TestSandboxes,
  text,
} from "../../testing/harness.ts";
import { type Inspection, inspect } from "../../testing/inspect.ts";

const isRoot = process.getuid?.() === 0;

function expectIsolated(found: Inspection): void {
  expect(found.uid).toBe(1000);
  expect(found.hostname).toBe("sandbox");
  expect(found.env).toEqual({
    PATH: "/usr/local/bin:/usr/bin:/bin",
    HOME: "/tmp",
    TMPDIR: "/tmp",
    USER: "user",
    LOGNAME: "user",
    LANG: "C.UTF-8",
    PWD: "/",
    SECRET: "canary",
  });
  expect(found.initEnvironment).toBe("");
  expect(found.initCommand).not.toContain("canary");
  expect(found.initCommand).not.toContain("bind");
  const system = [
    "bin",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "opt",
    "proc",
    "run",
    "sbin",
    "tmp",
    "usr",
  ];
  expect(found.root.filter((name) => !system.includes(name))).toEqual([]);
  expect(found.pids.length).toBeLessThanOrEqual(3);
  expect(found.interfaces).toEqual(["lo"]);
  expect(found.status).toMatchObject({
    Seccomp: "2",
    NoNewPrivs: "1",
    CapEff: "0000000000000000",
    CapPrm: "0000000000000000",
    CapBnd: "0000000000000000",
    CapAmb: "0000000000000000",
  });
  const { "write /tmp/x": tmp, "write /dev/shm/x": shm, ...others } = found.attempts;
  expect([tmp, shm]).toEqual(["done", "done"]);
  expect(Object.entries(others).filter(([, outcome]) => outcome === "done")).toEqual([]);
  expect(found.attempts["connect to the host's loopback"]).toBe("ECONNREFUSED");
  expect(found.attempts["connect to an abstract socket"]).toBe("ECONNREFUSED");
  expect(found.attempts["connect to the internet"]).toBe("ENETUNREACH");
}

let opened: TestSandboxes;
beforeAll(async () => {
  opened = await openForTest();
});
afterAll(() => opened?.[Symbol.asyncDispose]());

describe("a sandboxed program", () => {
  it("[MU-3] sees an empty machine: no host files, no secrets, no network, no way to more rights", async () => {
    const hidden = ["/etc/shadow", "/root", "/home", opened.dataDir, import.meta.dirname];
    expectIsolated(await inspect(opened.sandboxes, hidden));
  });

  it("[MU-3] inherits no open file of the server or of whoever started it", async () => {
    // Node opens its own files so that no child gets them; ours here stands for any it might miss.
    openSync("/etc/hostname", "r");
    const { stdout } = await shell(opened.sandboxes, "for fd in /proc/self/fd/*; do readlink $fd; done");
    const links = stdout.trim().split("\n");
    expect(links.filter((link) => !/^socket:|^\/proc\/|^$/.test(link))).toEqual([]);
    expect(links.filter((link) => link.startsWith("socket:"))).toHaveLength(3);
  });

  it("[MU-3] gets descriptors of nobody who started the server, however high their numbers", async () => {
    const script = `
      import { openForTest, shell } from ${JSON.stringify(new URL("../../testing/harness.ts", import.meta.url).href)};
      await using opened = await openForTest();
      const { stdout } = await shell(opened.sandboxes, "for fd in /proc/self/fd/*; do readlink $fd; done");
      console.log(JSON.stringify(stdout));`;
    const inherit = `exec 9</etc/passwd 77</etc/passwd 251</etc/passwd; exec "$@"`;
    const args = ["-c", inherit, "bash", process.execPath, "--input-type=module-typescript", "-e", script];
    const { stdout } = await promisify(execFile)("bash", args, { timeout: 30_000 });
    expect(lastJson(stdout)).not.toContain("passwd");
  });

  it.runIf(isRoot)("[MU-3] is no root on the host, and not the user of its neighbour", async () => {
    const { slots } = opened.sandboxes;
    const pair = await Promise.all([slots.acquire(), slots.acquire()]);
    const uids = [];
    for (const slot of pair) {
      const running = await opened.sandboxes.start(specFor(slot, ["sleep", "100"]));
      for (const { pid } of treeOf(running.pid, allProcesses())) {
        expect((await stat(`/proc/${pid}`)).uid).toBe(slot.uid);
      }
      uids.push(slot.uid);
      expect((await stat(slot.dir)).uid).toBe(slot.uid);
    }
    expect(new Set(uids).size).toBe(2);
    expect(Math.min(...uids.map(Number))).toBeGreaterThan(60_000 - slots.size - 1);
    await Promise.all(pair.map((slot) => slot.release()));
  });

  it.runIf(isRoot)(
    "[MU-3] is held as well when the server is an ordinary user, without control groups",
    async () => {
      await using clone = await makeReadableClone();
      const found = lastJson(await clone.run("sandbox/testing/unprivileged.ts"));
      expect(found.probe).toMatchObject({ available: true });
      expectIsolated(found.inspection);
      expect(found.memory).toMatchObject({ limit: "memory" });
      expect(found.forks.stdout).not.toContain("all");
      expect(found.tree).toBeGreaterThanOrEqual(8);
      expect(found.stopped).toEqual([]);
      expect(found.left).toEqual([]);
    },
    90_000,
  );

  it("reads and writes what is mounted for it, as the slot's user", async () => {
    const slot = await opened.sandboxes.slots.acquire();
    const work = await slot.makeDir("work");
    const fixed = await slot.makeDir("fixed");
    const outcome = await shell(opened.sandboxes, "echo out > a; cat a; pwd; echo x > /fixed/x", {
      slot,
      cwd: "/work",
      mounts: [
        { source: work, target: "/work", mode: "rw" },
        { source: fixed, target: "/fixed", mode: "ro" },
      ],
    });
    expect(outcome).toMatchObject({ stdout: "out\n/work\n" });
    expect(outcome.stderr).toMatch(/Read-only file system/);
    expect(await readFile(`${work}/a`, "utf8")).toBe("out\n");
    await slot.release();
    await expect(stat(slot.dir)).rejects.toThrow(/ENOENT/);
  });

  it("is started with arguments and variables taken literally", async () => {
    const odd = ["$(id)", "; rm -rf /", "--", "-c", "", "ü\n'\"\\", "--bind"];
    const { stdout } = await runNode(opened.sandboxes, "console.log(JSON.stringify(process.argv.slice(1)))", {
      env: { ODD: "a\nb=c" },
    });
    expect(JSON.parse(stdout)).toEqual([]);
    const printed = await run(opened.sandboxes, ["printf", "%s|", ...odd], { env: { ODD: "--setenv" } });
    expect(printed.stdout).toBe(odd.map((word) => `${word}|`).join(""));
    expect(
      (await shell(opened.sandboxes, 'printf %s "$ODD"', { env: { ODD: "a\nb=c\t$(id)" } })).stdout,
    ).toBe("a\nb=c\t$(id)");
  });

  it("talks over its three streams in both directions, to the last byte", async () => {
    const slot = await opened.sandboxes.slots.acquire();
    const running = await opened.sandboxes.start(specFor(slot, ["/bin/sh", "-c", "cat; echo end >&2"]));
    const sent = Buffer.alloc(4 * 1024 * 1024, "0123456789abcdef\n");
    running.stdin.end(sent);
    const [out, err] = await Promise.all([text(running.stdout), text(running.stderr)]);
    expect(out.length).toBe(sent.length);
    expect(out === sent.toString()).toBe(true);
    expect(err).toBe("end\n");
    expect(await running.exited).toEqual({ code: 0, signal: null });
    await slot.release();
  });

  it("ends with its own exit code, or 128 and the signal", async () => {
    expect(await shell(opened.sandboxes, "exit 7")).toMatchObject({ code: 7, signal: null });
    expect(await shell(opened.sandboxes, "kill -SEGV $$")).toMatchObject({ code: 139 });
    const missing = await run(opened.sandboxes, ["/no/such/program"]);
    // bubblewrap says 1, and what may stand between it and the program says 127 as shells do.
    expect([1, 127]).toContain(missing.code);
    expect(missing.stderr).toMatch(/no such file/i);
  });
});
