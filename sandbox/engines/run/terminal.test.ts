import { once } from "node:events";
import { readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { finished } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { allProcesses, isRunning, readProcess, residentBytes, treeOf } from "../../process-tree.ts";
import type { Sandboxes } from "../../sandboxes.ts";
import { LIMITS, openForTest, shell, type TestSandboxes, until } from "../../testing/harness.ts";
import { NASTY_TREE } from "../../testing/nasty.ts";
import { openScreen, type Screen, SIZE } from "../../testing/screen.ts";

const MIB = 1024 * 1024;
const PROMPT = /ready> $/;
const CTRL_C = "\x03";
const CTRL_D = "\x04";
const CTRL_Z = "\x1a";
const ESCAPE = "\x1b";

let opened: TestSandboxes;
let sandboxes: Sandboxes;
const screens: Screen[] = [];
beforeAll(async () => {
  opened = await openForTest();
  sandboxes = opened.sandboxes;
});
afterAll(async () => {
  await Promise.all(screens.map((screen) => screen.close()));
  await opened?.[Symbol.asyncDispose]();
});

async function open(more: Parameters<typeof openScreen>[1] = {}): Promise<Screen> {
  const screen = await openScreen(sandboxes, more);
  screens.push(screen);
  if (more.paused !== true && more.argv === undefined) await until(() => PROMPT.test(screen.text()));
  return screen;
}

async function running(screen: Screen, name: string): Promise<boolean> {
  return (await screen.terminal.processes()).some(({ command }) => command[0] === name);
}

/** The process that keeps the terminals. */
function keeperPid(): number {
  const children = treeOf(sandboxes.launcherPid ?? 0, allProcesses());
  const keeper = children.find(({ pid }) =>
    readFileSync(`/proc/${pid}/cmdline`, "latin1").includes("launcher/keeper.ts"),
  );
  if (keeper === undefined) throw new Error("there is no keeper");
  return keeper.pid;
}

describe("[SB-run] a terminal", () => {
  it("is one for the programs in it", async () => {
    const screen = await open();
    expect(screen.terminal.id).toMatch(/^trm_/);
    expect(
      await screen.type("tty; test -t 0 && test -t 1 && test -t 2 && echo yes\r", /\nyes\r\n/),
    ).toContain("/dev/console\r\n");
    await screen.type(
      "stty size; echo $TERM $COLORTERM $(tput colors)\r",
      /30 90\r\nxterm-256color truecolor 256/,
    );
    await screen.type("echo controlling > /dev/tty\r", /\ncontrolling\r\n/);
    await screen.type("ls /dev/pts\r", /\nptmx\r\n/);
    await screen.close();
  });

  it("stops, continues and interrupts what runs in it", async () => {
    const screen = await open();
    await screen.type("sleep 1000\r", "sleep");
    await until(() => running(screen, "sleep"));
    await screen.type(CTRL_Z, /Stopped/);
    expect((await screen.terminal.processes()).find(({ command }) => command[0] === "sleep")?.state).toBe(
      "T",
    );
    await screen.type("fg\r", "sleep 1000");
    await screen.type(CTRL_C, PROMPT);
    expect(await running(screen, "sleep")).toBe(false);
    await screen.type("sleep 1000 &\r", /\[1\] \d+/);
    await screen.type("kill %1; wait; echo $?\r", /Terminated/);
    await screen.close();
  });

  it("tells its programs of a new size", async () => {
    const screen = await open();
    await screen.type("trap 'echo now $(stty size)' WINCH\r", PROMPT);
    screen.terminal.resize({ cols: 132, rows: 43 });
    await screen.type("\r", /now 43 132/);
    for (const size of [
      { cols: 0, rows: 1 },
      { cols: 80, rows: 1001 },
      { cols: 1.5, rows: 2 },
    ]) {
      expect(() => screen.terminal.resize(size)).toThrow(/cannot have/);
      await expect(open({ size })).rejects.toMatchObject({ code: "InvalidParams" });
    }
    await screen.close();
  });

  it("takes letters of any length, also where the kernel edits the line", async () => {
    const screen = await open({ argv: ["sh", "-c", "echo ready; exec cat"] });
    await until(() => screen.text().includes("ready"));
    await screen.type("aä€😀\x7f\x7f\x7fb\r", /\nab\r\n/);
    await screen.type(CTRL_D, "");
    expect(await screen.terminal.exited).toEqual({ code: 0, signal: null });
    await screen.close();
  });

  it("runs an editor, a pager, a monitor and an interpreter", async () => {
    const slot = await sandboxes.slots.acquire();
    const work = await slot.makeDir("work");
    const screen = await open({
      slot,
      cwd: "/work",
      mounts: [{ source: work, target: "/work", mode: "rw" }],
    });
    await screen.type("vim -u NONE note\r", /~/);
    await screen.type(`iGrüße${ESCAPE}:wq\r`, PROMPT);
    expect(await readFile(`${work}/note`, "utf8")).toBe("Grüße\n");
    await screen.type("seq 100 | less\r", /29\r\n/);
    await screen.type("q", PROMPT);
    await screen.type("top\r", /COMMAND/);
    await screen.type("q", PROMPT);
    await screen.type("perl -e 'print 6*7, qq(\\n); <STDIN>'\r", /\n42\r\n/);
    await screen.type("\r", PROMPT);
    await screen.close();
  });

  it("keeps the shell's history in its home", async () => {
    const slot = await sandboxes.slots.acquire();
    const home = await slot.makeDir("home");
    const mounts = [{ source: home, target: "/home/user", mode: "rw" as const }];
    await writeFile(`${home}/.bashrc`, "PS1='mine> '\n");
    const screen = await open({ slot, mounts, env: { HOME: "/home/user" }, argv: ["bash"] });
    await until(() => /mine> $/.test(screen.text()));
    await screen.type("echo remembered\r", /\nremembered/);
    screen.terminal.write(CTRL_D);
    expect(await screen.terminal.exited).toMatchObject({ code: 0 });
    expect(await readFile(`${home}/.bash_history`, "utf8")).toBe("echo remembered\n");
    await screen.close();
  });

  it("ends with its shell, whose last words and exit code arrive", async () => {
    const screen = await open();
    expect(sandboxes.run.terminals()).toContain(screen.terminal);
    const ended = finished(screen.terminal.output);
    screen.terminal.write("sleep 1000 & seq 20000; exit 7\r");
    expect(await screen.terminal.exited).toEqual({ code: 7, signal: null });
    await ended;
    expect(screen.text()).toMatch(/\n19999\r\n20000\r\nexit\r\n/);
    expect(await screen.terminal.processes()).toEqual([]);
    expect(sandboxes.run.terminals()).not.toContain(screen.terminal);
    screen.terminal.write("too late");
    screen.terminal.resize(SIZE);
    await screen.close();
  });

  it("gives its signals to what is in the foreground", async () => {
    const screen = await open();
    await screen.type("sleep 1000 &\r", PROMPT);
    await screen.type("sleep 2000\r", "sleep");
    await until(async () => (await screen.terminal.processes()).length === 3);
    expect(await screen.terminal.signal("SIGINT")).toBe(1);
    await until(() => PROMPT.test(screen.text()));
    expect((await screen.terminal.processes()).map(({ command }) => command.join(" "))).toEqual([
      "bash",
      "sleep 1000",
    ]);
    await screen.close();
  });

  it("takes no words put into its mouth, and no other driver", async () => {
    const screen = await open();
    for (const request of ["0x5412", "0x5423"]) {
      const attempt = `perl -e '$word = pack(q(i), 21); ioctl(STDIN, ${request}, $word) or print "refused: $!\\n"'`;
      await screen.type(`${attempt}\r`, /\nrefused: Operation not permitted/);
    }
    await screen.close();
  });

  it("is known to no other sandbox, however many start beside it", async () => {
    const pair = await Promise.all([open(), open()]);
    const others = await Promise.all(
      Array.from({ length: 5 }, () =>
        shell(sandboxes, "for fd in /proc/self/fd/*; do readlink $fd; done; ls /dev"),
      ),
    );
    for (const { stdout } of others) expect(stdout).not.toMatch(/pts\/\d|dev\/ptmx|console/);
    for (const screen of pair) {
      const text = await screen.type(
        "for fd in /proc/$$/fd/*; do readlink $fd; done; echo end\r",
        /\nend\r\n/,
      );
      expect([...text.matchAll(/^(\/dev.*?)\r$/gm)].map(([, path]) => path)).toEqual(
        Array.from({ length: 4 }, () => expect.stringMatching(/^\/dev\/(pts\/\d+|tty|console)$/)),
      );
    }
    await Promise.all(pair.map((screen) => screen.close()));
  });

  it("nobody reads stops what floods it, at no cost of memory, and still hears Ctrl+C", async () => {
    const screen = await open({ paused: true, argv: ["bash", "--norc"] });
    screen.terminal.write("yes a line that says nothing at all, over and over\r");
    await until(() => running(screen, "yes"));
    let spent = -1;
    await until(async () => {
      await sleep(200);
      const { cpuMs } = await screen.terminal.stats();
      const still = cpuMs === spent;
      spent = cpuMs;
      return still;
    });
    const keeper = readProcess(keeperPid());
    if (keeper === undefined) throw new Error("the keeper has gone");
    expect(residentBytes(keeper)).toBeLessThan(120 * MIB);
    expect(screen.terminal.output.readableLength).toBeLessThanOrEqual(MIB);
    screen.terminal.write(CTRL_C);
    await until(async () => !(await running(screen, "yes")));
    await screen.close();
    expect(screen.terminal.output.destroyed).toBe(true);
  });

  it("carries a flood to whoever reads", async () => {
    const screen = await open({ paused: true, argv: ["head", "-c", `${8 * MIB}`, "/dev/zero"] });
    let bytes = 0;
    screen.terminal.output.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
    });
    await once(screen.terminal.output, "end");
    expect(bytes).toBe(8 * MIB);
    await screen.close();
  });

  it("whose program reads nothing takes no more than so much input", async () => {
    const screen = await open({ argv: ["sh", "-c", "stty raw; echo raw; exec sleep 1000"] });
    await until(() => screen.text().includes("raw"));
    expect(() => {
      for (let piece = 0; piece < 8; piece += 1) screen.terminal.write(Buffer.alloc(MIB, "x"));
    }).toThrow(expect.objectContaining({ code: "QuotaExceeded" }));
    await screen.close();
  });

  it("says what is wrong with a program that cannot be started in it", async () => {
    await expect(open({ argv: [] })).rejects.toMatchObject({ code: "InvalidParams" });
    const screen = await open({ argv: ["/no/such/program"] });
    expect(await screen.terminal.exited).toMatchObject({ code: 127 });
    await until(() => /not found/.test(screen.text()));
    await screen.close();
  });
});

describe.each(["best", "rlimits"] as const)("with %s limits", (which) => {
  let own: TestSandboxes;
  beforeAll(async () => {
    own = await openForTest(which === "best" ? {} : { tier: "rlimits" });
    sandboxes = own.sandboxes;
  });
  afterAll(async () => {
    await own?.[Symbol.asyncDispose]();
    sandboxes = opened.sandboxes;
  });

  async function openNasty() {
    const screen = await openScreen(sandboxes, { argv: ["bash", "-c", NASTY_TREE] });
    await until(() => screen.text().includes("ready"));
    const tree = await until(() => {
      const now = treeOf(screen.terminal.pid, allProcesses());
      return now.length >= 8 && now;
    });
    return { screen, tree };
  }

  it("[MU-6] kill leaves nothing of what was started in a terminal", async () => {
    const { screen, tree } = await openNasty();
    await screen.terminal.freeze();
    await screen.terminal.thaw();
    await screen.terminal.kill();
    expect(tree.filter(isRunning)).toEqual([]);
    expect(await screen.terminal.exited).toEqual({ code: null, signal: "SIGKILL" });
    expect(screen.terminal.output.destroyed).toBe(true);
    await screen.close();
  });

  it("[MU-6] the keeper's death ends terminals and nothing else; the next one opens", async () => {
    const { screen, tree } = await openNasty();
    const other = shell(sandboxes, "sleep 1; echo still here");
    process.kill(keeperPid(), "SIGKILL");
    await screen.terminal.exited;
    expect(tree.filter(isRunning)).toEqual([]);
    expect((await other).stdout).toBe("still here\n");
    const next = await openScreen(sandboxes);
    await next.type("echo again\r", /\nagain/);
    await Promise.all([screen.close(), next.close()]);
  });

  it("[MU-6] the launcher's death ends terminals too, and their keeper", async () => {
    const { screen, tree } = await openNasty();
    const keeper = readProcess(keeperPid());
    process.kill(sandboxes.launcherPid ?? 0, "SIGKILL");
    expect(await screen.terminal.exited).toMatchObject({ signal: "SIGKILL" });
    expect(tree.filter(isRunning)).toEqual([]);
    await until(() => keeper !== undefined && !isRunning(keeper));
    await screen.close();
  });

  it("memory and processes are held to their limits", async () => {
    const limits = { ...LIMITS, processes: 20 };
    const screen = await openScreen(sandboxes, { limits, argv: ["bash", "--norc"] });
    await screen.type(
      "for i in $(seq 60); do sleep 1000 & done; echo all\r",
      /Cannot fork|Resource temporarily|retry/i,
    );
    expect((await screen.terminal.processes()).length).toBeLessThanOrEqual(24);
    await screen.close();
  });
});
