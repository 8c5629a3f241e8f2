import { readFile, stat, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type ExecOptions, tools } from "#agents/tools/index.ts";
import { NetworkGrants, type Slot } from "#sandbox";
import { LIMITS, openForTest, silent, type TestSandboxes } from "#sandbox/testing/harness.ts";
import { AppError } from "#schemas";
import { SandboxToolHost, type SandboxToolHostOptions } from "./tool-host.ts";

let opened: TestSandboxes;
let slot: Slot;
let area: string;
let home: string;
let host: SandboxToolHost;
const never = new AbortController().signal;
const reason = new AppError("Cancelled", "The task was cancelled.");

beforeAll(async () => {
  opened = await openForTest();
});
afterAll(async () => {
  await opened[Symbol.asyncDispose]();
});
beforeEach(async () => {
  slot = await opened.sandboxes.slots.acquire();
  area = await slot.makeDir("area");
  home = await slot.makeDir("home");
  host = await open();
  await host.write("a.txt", Buffer.from("one\ntwo\n"));
});
afterEach(async () => {
  await host.close();
  await slot.release();
});

function open(more: Partial<SandboxToolHostOptions> = {}): Promise<SandboxToolHost> {
  const { sandboxes } = opened;
  return SandboxToolHost.open({ sandboxes, slot, area, home, limits: LIMITS, fileBytes: 100_000, ...more });
}

const run = (
  command: string,
  more: { timeoutMs?: number; signal?: AbortSignal; outputBytes?: number } = {},
) => host.exec(command, { timeoutMs: 60_000, signal: never, ...more });
const text = async (path: string) => Buffer.from(await host.read(path)).toString();

/** A tool of the loop on this host. */
function use(name: string, fields: unknown): Promise<string> {
  const tool = tools.find((one) => one.name === name);
  if (tool === undefined) throw new Error(`no tool ${name}`);
  return tool.prepare(fields, host.directory).run({ host, signal: never, outputChars: 20_000 });
}

/** Make a path in the working directory ours to set up, as the slot's user would have. */
const inWork = (...names: string[]) => join(area, "request", "work", ...names);

describe("files of the native loop", () => {
  it("are the agent's own: commands and tools see the same, under the same user", async () => {
    expect(
      await run("cat a.txt; echo three >> a.txt; mkdir d; echo x > d/b.txt; id -u; stat -c %u a.txt ."),
    ).toMatchObject({
      code: 0,
      output: "one\ntwo\n1000\n1000\n1000\n",
    });
    expect(await text("a.txt")).toBe("one\ntwo\nthree\n");
    await host.write("deep/er/c.txt", Buffer.from("c"));
    expect((await run("echo d >> deep/er/c.txt && cat deep/er/c.txt")).output).toBe("cd\n");
    expect(await host.list("")).toEqual([
      { name: "a.txt", kind: "file" },
      { name: "d", kind: "directory" },
      { name: "deep", kind: "directory" },
    ]);
    await host.remove("deep");
    expect((await run("ls")).output).toBe("a.txt\nd\n");
    const { uid } = await stat(inWork("a.txt"));
    expect(uid).toBe(slot.uid ?? process.getuid?.());
  });

  it("keep a program's right to be run when they are edited", async () => {
    await run("printf '#!/bin/sh\\necho old\\n' > tool.sh; chmod +x tool.sh");
    await use("edit", { filePath: "tool.sh", oldString: "old", newString: "new" });
    expect((await run("./tool.sh")).output).toBe("new\n");
    expect((await stat(inWork("a.txt"))).mode & 0o111).toBe(0);
  });

  it("lead nowhere else, whatever the agent has made of them", async () => {
    const secret = join(opened.dataDir, "secret.txt");
    await writeFile(secret, "secret");
    await symlink(secret, inWork("link.txt"));
    await symlink(opened.dataDir, inWork("linkdir"));
    await run("mkfifo fifo; ln a.txt hard.txt");
    for (const path of ["link.txt", "linkdir/secret.txt", "fifo", "hard.txt", "../prompts"]) {
      await expect(host.read(path)).rejects.toMatchObject({ name: "AppError" });
    }
    await expect(host.write("linkdir/new.txt", Buffer.from("x"))).rejects.toMatchObject({ name: "AppError" });
    // A link is replaced, not written through.
    await host.write("link.txt", Buffer.from("mine"));
    expect(await readFile(secret, "utf8")).toBe("secret");
    expect(await text("link.txt")).toBe("mine");
    expect((await host.list("")).map(({ name }) => name)).not.toContain("linkdir");
    expect(await host.walk({ maxFiles: 100 })).toEqual(["link.txt"]);
    await run("rm -f link.txt hard.txt && mv ../work ../moved && ln -s / ../work");
    await expect(host.read("etc/passwd")).rejects.toMatchObject({ name: "AppError" });
    await expect(host.write("tmp/x", Buffer.from("x"))).rejects.toMatchObject({ name: "AppError" });
  });

  it("are named in errors as the agent names them, and bounded", async () => {
    await expect(use("read", { filePath: "gone/b.txt" })).rejects.toThrow(/^There is no gone/);
    await expect(use("read", { filePath: "gone.txt" })).rejects.toThrow("gone.txt");
    await run("head -c 200000 /dev/zero > big; mkdir dir");
    await expect(host.read("big")).rejects.toMatchObject({
      code: "PayloadTooLarge",
      details: { hint: expect.stringContaining("grep") },
    });
    await expect(host.write("big2", new Uint8Array(200_000))).rejects.toMatchObject({
      code: "PayloadTooLarge",
    });
    await expect(host.read("dir")).rejects.toMatchObject({
      code: "Conflict",
      message: "dir is a directory.",
    });
    await expect(host.write("dir", Buffer.from("x"))).rejects.toMatchObject({ code: "Conflict" });
    await expect(host.write("a.txt/x", Buffer.from("x"))).rejects.toMatchObject({ code: "Conflict" });
  });

  it("are found and searched without what is ignored", async () => {
    await run(
      [
        "mkdir -p src node_modules/x dist .git sub/gen",
        "printf 'dist/\\n*.log\\n' > .gitignore; printf 'gen/\\n' > sub/.gitignore",
        "for f in src/a.ts node_modules/x/i.js dist/o.js .git/HEAD x.log sub/gen/g.ts sub/s.ts; do echo 'needle here' > $f; done",
      ].join("; "),
    );
    expect(await host.walk({ maxFiles: 100 })).toEqual([
      ".gitignore",
      "a.txt",
      "src/a.ts",
      "sub/.gitignore",
      "sub/s.ts",
    ]);
    expect(await host.walk({ maxFiles: 2 })).toHaveLength(2);
    expect(await use("glob", { pattern: "*.ts" })).toBe("src/a.ts\nsub/s.ts");
    const found = await use("grep", { pattern: "need(le|les) \\w+" });
    expect(found.split("\n").slice(-2)).toEqual(["src/a.ts:1:needle here", "sub/s.ts:1:needle here"]);
    expect(found).not.toMatch(/dist|\.git\/|x\.log|gen\//);
    expect(await use("grep", { pattern: "needle", include: "s.*" })).toBe("sub/s.ts:1:needle here");
    expect(await use("grep", { pattern: "needle", path: "src/a.ts" })).toBe("src/a.ts:1:needle here");
    expect(await use("grep", { pattern: "no such thing" })).toBe("Nothing matches.");
    await expect(use("grep", { pattern: "(" })).rejects.toThrow("The search failed");
    // Nothing of a pattern reaches the shell.
    await use("grep", { pattern: "'; touch pwned; '", path: "src", include: "$(touch pwned)" });
    await use("grep", { pattern: "--pre=touch", path: "-x/../src" }).catch(() => undefined);
    expect(await host.walk({ maxFiles: 100 })).not.toContain("pwned");
  });

  it("are searched on a machine without ripgrep as well", async () => {
    await run(
      "mkdir -p src .git node_modules/x; for f in src/a.ts .git/HEAD node_modules/x/i.js; do echo needle > $f; done",
    );
    const onlyGrep = "mkdir /tmp/bin; ln -s $(command -v grep) /tmp/bin/grep; PATH=/tmp/bin; ";
    const poor = Object.create(host, {
      exec: { value: (command: string, options: ExecOptions) => host.exec(onlyGrep + command, options) },
    });
    const grep = tools.find((tool) => tool.name === "grep");
    const search = (fields: object) =>
      grep?.prepare(fields, host.directory).run({ host: poor, signal: never, outputChars: 20_000 });
    expect(await search({ pattern: "need(le|les)" })).toBe("src/a.ts:1:needle");
    expect(await search({ pattern: "needle", path: "src", include: "*.ts" })).toBe("src/a.ts:1:needle");
    expect(await search({ pattern: "needle", include: "*.js" })).toBe("Nothing matches.");
    await expect(search({ pattern: "(" })).rejects.toThrow("The search failed");
  });
});

describe("commands of the native loop", () => {
  it("tell their output with its errors in order, and how they ended", async () => {
    expect(await run("echo out; echo err >&2; echo more; exit 3")).toEqual({
      code: 3,
      output: "out\nerr\nmore\n",
      truncated: false,
      timedOut: false,
    });
    expect((await run("[[ a == a ]] && echo bash")).output).toBe("bash\n");
    expect((await run("node -e 'console.log(6 * 7)'; echo $HOME; pwd")).output).toBe(
      "42\n/home/agent\n/workspace/request/work\n",
    );
    const long = await run("seq 100000", { outputBytes: 1000 });
    expect(long).toMatchObject({
      truncated: true,
      output: expect.stringMatching(/^1\n2\n[\s\S]*left out[\s\S]*\n100000\n$/),
    });
    await expect(run("echo \0")).rejects.toMatchObject({ code: "InvalidParams" });
  });

  it("have no terminal, no input, no network, and leave nothing in /tmp", async () => {
    expect((await run("cat; tty")).output).toMatch(/not a tty/);
    expect((await run("echo x > /tmp/x; ls /tmp")).output).toBe("x\n");
    expect((await run("ls /tmp")).output).toBe("");
    await run("echo kept > ~/kept");
    expect((await run("cat ~/kept")).output).toBe("kept\n");
    expect(await run("node -e \"fetch('http://127.0.0.1:1').catch(() => process.exit(7))\"")).toMatchObject({
      code: 7,
    });
    expect((await run("cat /proc/1/environ; env")).output).not.toMatch(/CDS_|OPENAI|DATABASE/);
  });

  it("end with everything they have started", async () => {
    const { sandboxes } = opened;
    expect(
      await run(
        "(while true; do date > tick; sleep 0.05; done) >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 & echo started",
      ),
    ).toMatchObject({
      code: 0,
      output: "started\n",
    });
    expect(sandboxes.run.list()).toEqual([]);
    await host.remove("tick");
    await sleep(150);
    expect(await host.walk({ maxFiles: 10 })).toEqual(["a.txt"]);
  });

  it("are ended when their time is up", async () => {
    expect(await run("echo begun; sleep 1000", { timeoutMs: 300 })).toMatchObject({
      output: "begun\n",
      timedOut: true,
    });
    expect(
      await run("trap '' TERM; echo begun; while true; do sleep 1; done", { timeoutMs: 300 }),
    ).toMatchObject({ timedOut: true });
  });

  it("fail alone when they need too much", async () => {
    const greedy = await run("node -e 'const a = []; for (;;) a.push(Buffer.alloc(1e7, 1))'");
    expect(greedy.code).not.toBe(0);
    const flood = await run("head -c 40000000 /dev/zero > big");
    expect(flood.code).not.toBe(0);
    expect((await run("echo fine")).output).toBe("fine\n");
  });

  it.each(["signal", "close"])("are gone when the run is ended (%s), and nobody waits", async (way) => {
    const cancel = new AbortController();
    const running = run("touch begun; sleep 1000 & sleep 1000", { signal: cancel.signal });
    running.catch(() => undefined);
    while (!(await host.walk({ maxFiles: 10 })).includes("begun")) await sleep(10);
    expect(host.busy).toBe(true);
    if (way === "signal") cancel.abort(reason);
    const closing = way === "close" ? host.close() : host.idle();
    await expect(running).rejects.toMatchObject({ code: "Cancelled" });
    await closing;
    expect(host.busy).toBe(false);
    expect(opened.sandboxes.run.list()).toEqual([]);
    await expect(run("echo x", { signal: cancel.signal })).rejects.toMatchObject({ code: "Cancelled" });
  });

  it("reach the hosts they are granted, and no other", async () => {
    const server = createServer((_, response) => response.end("granted"));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const refused: string[] = [];
    const grants = new NetworkGrants({ hosts: [`127.0.0.1:${port}`], reach: "machine" }, silent);
    const rules = grants.rules([`127.0.0.1:${port}`]) ?? [];
    const network = await grants.open(slot, rules, (name) => void refused.push(name));
    try {
      await using online = await open({ network });
      // Asked by hand: programs go to 127.0.0.1 without a proxy otherwise.
      const get = (to: number) =>
        `node -e "require('http').get({host:'127.0.0.1',port:new URL(process.env.http_proxy).port,path:'http://127.0.0.1:${to}/'},r=>r.pipe(process.stdout))"`;
      const options = { timeoutMs: 60_000, signal: never };
      expect((await online.exec(get(port), options)).output).toContain("granted");
      expect((await online.exec(get(port), options)).output).toContain("granted");
      expect((await online.exec(get(port + 1), options)).output).not.toContain("granted");
      expect(refused).toEqual([`127.0.0.1:${port + 1}`]);
    } finally {
      await network.proxy.close();
      server.closeAllConnections();
      server.close();
    }
  });
});
