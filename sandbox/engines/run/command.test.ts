import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { allProcesses, isRunning, treeOf } from "../../process-tree.ts";
import { LIMITS, openForTest, specFor, type TestSandboxes, until } from "../../testing/harness.ts";
import { NASTY_TREE } from "../../testing/nasty.ts";
import type { SandboxSpec } from "../../types.ts";
import { type CommandOptions, startCommand } from "./command.ts";

const MIB = 1024 * 1024;
const GENEROUS: CommandOptions = { outputBytes: MIB, timeoutMs: 60_000 };

let opened: TestSandboxes;
beforeAll(async () => {
  opened = await openForTest();
});
afterAll(() => opened?.[Symbol.asyncDispose]());

async function start(
  argv: readonly string[],
  options: Partial<CommandOptions> = {},
  more: Partial<SandboxSpec> = {},
) {
  const slot = await opened.sandboxes.slots.acquire();
  try {
    const command = await startCommand(opened.sandboxes, specFor(slot, argv, more), {
      ...GENEROUS,
      ...options,
    });
    void command.finished.catch(() => undefined).finally(() => slot.release());
    return command;
  } catch (error) {
    await slot.release();
    throw error;
  }
}

async function finish(
  script: string,
  options: Partial<CommandOptions> = {},
  more: Partial<SandboxSpec> = {},
) {
  const command = await start(["bash", "-c", script], options, more);
  const { stdout, stderr, ...result } = await command.finished;
  return { ...result, stdout: stdout.toString("utf8"), stderr: stderr.toString("utf8") };
}

describe("[SB-run] a command", () => {
  it("gives its output, its errors and its exit code", async () => {
    const result = await finish("echo über; echo Fehler >&2; exit 3");
    expect(result).toMatchObject({ stdout: "über\n", stderr: "Fehler\n", exit_code: 3, truncated: false });
    expect(result.limit).toBeUndefined();
    expect(result.duration_ms).toBeGreaterThan(0);
  });

  it("has an id, and can be watched while it runs", async () => {
    const command = await start(["sleep", "1000"]);
    expect(command.id).toMatch(/^run_/);
    expect(command.startedAt).toBe(command.process.startedAt);
    const listed = await until(async () => {
      const now = await command.process.processes();
      return now.some(({ command: words }) => words.join(" ") === "sleep 1000") && now;
    });
    expect(listed).toEqual([expect.objectContaining({ pid: 2, ppid: 1, command: ["sleep", "1000"] })]);
    await command.kill();
    expect(await command.finished).toMatchObject({ exit_code: null, signal: "SIGKILL" });
  });

  it("reads its input, and finds none without", async () => {
    expect(await finish("tr a-z A-Z", { input: "grün\n" })).toMatchObject({ stdout: "GRüN\n", exit_code: 0 });
    expect(await finish("cat")).toMatchObject({ stdout: "", exit_code: 0 });
    expect(await finish("exit 0", { input: Buffer.alloc(4 * MIB) })).toMatchObject({ exit_code: 0 });
    const long = { input: Buffer.alloc(16 * MIB + 1) };
    await expect(finish("cat", long)).rejects.toMatchObject({ code: "PayloadTooLarge" });
  });

  it("has variables of its own, and none can take its isolation", async () => {
    const env = { HOME: "/tmp/home", PATH: "/usr/bin:/bin", LD_PRELOAD: "/tmp/none.so", ÄÖ: "x" };
    await expect(finish("env", {}, { env })).rejects.toMatchObject({ code: "InvalidParams" });
    const { ÄÖ: _, ...fine } = env;
    const { stdout } = await finish(
      'echo "$HOME $PATH $LD_PRELOAD"; unshare -U true; echo $?',
      {},
      { env: fine },
    );
    expect(stdout).toBe("/tmp/home /usr/bin:/bin /tmp/none.so\n1\n");
  });

  it("refuses numbers that are none, and what no system takes", async () => {
    for (const wrong of [
      { outputBytes: 0 },
      { outputBytes: 1.5 },
      { timeoutMs: -1 },
      { timeoutMs: Number.NaN },
    ]) {
      const refused = finish("true", wrong);
      await expect(refused).rejects.toMatchObject({
        code: "InvalidParams",
        details: { hint: /whole number/ },
      });
    }
    for (const argv of [["echo", "x".repeat(128 * 1024)], Array.from({ length: 3000 }, () => "x")]) {
      await expect(start(argv)).rejects.toMatchObject({ code: "InvalidParams" });
    }
    const env = Object.fromEntries(
      Array.from({ length: 12 }, (_, index) => [`V${index}`, "x".repeat(100_000)]),
    );
    await expect(start(["true"], {}, { env })).rejects.toMatchObject({ code: "InvalidParams" });
  });

  it("keeps the beginning and the end of a long output, and is not held up by it", async () => {
    const script = "echo first; seq 1 200000; echo last; seq 1 200000 >&2";
    const result = await finish(script, { outputBytes: 1000 });
    expect(result).toMatchObject({ exit_code: 0, truncated: true });
    expect(result.stdout).toMatch(
      /^first\n1\n2\n[\s\S]*\n\[\.\.\. \d+ bytes left out \.\.\.\]\n[\s\S]*\n200000\nlast\n$/,
    );
    expect(result.stderr).toMatch(/\n200000\n$/);
    expect(result.stdout.length).toBeLessThan(1100);
  });

  it("that writes without end is ended for it", async () => {
    const result = await finish("yes", { floodBytes: 4 * MIB, outputBytes: 100 });
    expect(result).toMatchObject({ exit_code: null, limit: "output", truncated: true });
  });

  it("names the limit it died of", async () => {
    const memory = finish(
      "head -c 400M /dev/zero | tail",
      {},
      { limits: { ...LIMITS, memoryBytes: 64 * MIB } },
    );
    expect(await memory).toMatchObject({ limit: "memory" });
    const file = finish(
      "exec dd if=/dev/zero of=/tmp/x bs=1M count=1 seek=8",
      {},
      {
        limits: { ...LIMITS, fileBytes: MIB },
      },
    );
    expect(await file).toMatchObject({ limit: "file", exit_code: 153 });
  });

  it("out of time is asked to end first", async () => {
    const script = "trap 'echo cleaned; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    const result = await finish(script, { timeoutMs: 500 });
    expect(result).toMatchObject({ exit_code: 9, limit: "time", stdout: "ready\ncleaned\n" });
  });

  it("out of time and deaf is ended with all it started", async () => {
    const command = await start(["/bin/sh", "-c", NASTY_TREE], { timeoutMs: 1500 });
    const tree = await until(() => {
      const now = treeOf(command.process.pid, allProcesses());
      return now.length >= 8 && now;
    });
    const result = await command.finished;
    expect(result).toMatchObject({ exit_code: null, signal: "SIGKILL", limit: "time" });
    expect(tree.filter(isRunning)).toEqual([]);
  });

  it("is ended by its caller's signal, before it starts and after", async () => {
    await expect(finish("true", { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: "Cancelled",
    });
    const stop = new AbortController();
    const command = await start(["bash", "-c", "echo ready; sleep 1000"], {
      signal: stop.signal,
      onOutput: () => stop.abort(),
    });
    const result = await command.finished;
    expect(result).toMatchObject({ exit_code: null, signal: "SIGKILL" });
    expect(result.stdout.toString()).toBe("ready\n");
  });

  it("gets a signal as a whole group, and answers to it", async () => {
    const heard = Promise.withResolvers<void>();
    const child = "(trap 'echo child; exit' USR1; echo ready; while :; do sleep 0.05; done)";
    const script = `trap 'wait; echo parent; exit 4' USR1; ${child} & wait`;
    const command = await start(["bash", "-c", script], { onOutput: () => heard.resolve() });
    await heard.promise;
    await command.kill("SIGUSR1");
    const { stdout, exit_code } = await command.finished;
    expect([stdout.toString(), exit_code]).toEqual(["ready\nchild\nparent\n", 4]);
  });

  it("tells an exit by a signal as a shell does", async () => {
    expect(await finish("kill -SEGV $$")).toMatchObject({ exit_code: 139 });
  });

  it("can be asked to end as soon as it has started", async () => {
    const command = await start(["sleep", "1000"]);
    await command.kill("SIGTERM");
    expect(await command.finished).toMatchObject({ exit_code: 143 });
  });

  it("that has ended takes no signal", async () => {
    const command = await start(["true"]);
    await command.finished;
    await command.kill("SIGTERM");
    await command.kill();
    expect(await command.process.signal("SIGTERM")).toBe(0);
  });

  it("disposes of itself", async () => {
    let finished: Promise<unknown>;
    {
      await using command = await start(["sleep", "1000"]);
      finished = command.finished;
    }
    expect(await finished).toMatchObject({ signal: "SIGKILL" });
    expect(opened.sandboxes.run.list().map(({ pid }) => pid)).toEqual([]);
  });
});

describe("[SB-run] output as it comes", () => {
  it("is handed on in order, one call at a time, with whole letters", async () => {
    const pieces: string[] = [];
    const numbers: number[] = [];
    let inside = 0;
    const result = await finish(
      "printf '\\303'; sleep 0.2; printf '\\244'; printf x >&2; printf '\\342\\202'",
      {
        async onOutput(stream, chunk, seq) {
          inside += 1;
          expect(inside).toBe(1);
          await new Promise((resolve) => setTimeout(resolve, 20));
          pieces.push(`${stream}: ${chunk.toString("latin1")}`);
          numbers.push(seq);
          inside -= 1;
        },
      },
    );
    expect(result.exit_code).toBe(0);
    expect(pieces.filter((piece) => piece.startsWith("stdout"))).toEqual([
      "stdout: \xc3\xa4",
      "stdout: \xe2\x82",
    ]);
    expect(pieces).toContain("stderr: x");
    expect(numbers).toEqual([0, 1, 2]);
  });

  it("slows the program down to its reader", async () => {
    const release = Promise.withResolvers<void>();
    let calls = 0;
    const command = await start(["yes"], {
      onOutput: () => {
        calls += 1;
        return release.promise;
      },
    });
    await until(() => calls === 1);
    // It works until the kernel's buffers are full, and then no more.
    let spent = -1;
    await until(async () => {
      await new Promise((resolve) => setTimeout(resolve, 200));
      const { cpuMs } = await command.process.stats();
      const still = cpuMs === spent;
      spent = cpuMs;
      return still;
    });
    expect(calls).toBe(1);
    release.resolve();
    await until(() => calls > 10);
    await command.kill();
    await command.finished;
  });

  it("not taken in time ends the command", async () => {
    const command = await start(["yes"], { stallMs: 200, onOutput: () => new Promise(() => undefined) });
    await expect(command.finished).rejects.toMatchObject({ code: "Timeout" });
    expect(await command.process.exited).toMatchObject({ signal: "SIGKILL" });
  });

  it("whose reader fails ends the command with that failure", async () => {
    const command = await start(["yes"], {
      onOutput: () => {
        throw new Error("the reader is gone");
      },
    });
    await expect(command.finished).rejects.toThrow("the reader is gone");
  });

  it("does not hold up a command that is ended", async () => {
    const asked = Promise.withResolvers<void>();
    const stop = new AbortController();
    const command = await start(["yes"], {
      signal: stop.signal,
      onOutput: () => {
        asked.resolve();
        return new Promise(() => undefined);
      },
    });
    await asked.promise;
    stop.abort();
    expect(await command.finished).toMatchObject({ signal: "SIGKILL" });
  });
});
