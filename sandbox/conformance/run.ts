import assert from "node:assert/strict";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { createServer } from "node:net";
import { type CommandOptions, startCommand } from "../engines/run/command.ts";
import { allProcesses, isRunning, treeOf } from "../process-tree.ts";
import type { Sandboxes } from "../sandboxes.ts";
import { LIMITS, openForTest, specFor } from "../testing/harness.ts";
import { NASTY_TREE } from "../testing/nasty.ts";
import { countOf, recordSpans } from "../testing/spans.ts";
import type { SandboxProcess, SandboxSpec } from "../types.ts";
import type { Feature, Fixture, FixtureMaker } from "./features.ts";
import { refused } from "./refused.ts";

const MIB = 1024 * 1024;

/** Run a shell's script as a command in a slot of its own. */
async function command(
  sandboxes: Sandboxes,
  script: string,
  more: Partial<SandboxSpec> = {},
  options: Partial<CommandOptions> = {},
) {
  const slot = await sandboxes.slots.acquire();
  try {
    const spec = specFor(slot, ["bash", "-c", script], more);
    const running = await startCommand(sandboxes, spec, { outputBytes: MIB, timeoutMs: 60_000, ...options });
    const result = await running.finished;
    return { ...result, text: result.stdout.toString("utf8") };
  } finally {
    await slot.release();
  }
}

/** Start a program in a slot of its own, and answer when it has said its first word. */
async function waiting(sandboxes: Sandboxes, script: string): Promise<SandboxProcess> {
  const slot = await sandboxes.slots.acquire();
  const running = await sandboxes.start(specFor(slot, ["bash", "-c", script]));
  void running.exited.then(() => slot.release());
  await once(running.stdout, "data");
  return running;
}

/** What it does, and what it says of that which cannot be done. */
function answers(sandboxes: Sandboxes): Pick<Fixture["scenarios"], "work" | "failure" | "input" | "limits"> {
  return {
    async work() {
      const input = Buffer.concat([
        Buffer.from("Grüße\n"),
        Buffer.from(Array.from({ length: 256 }, (_, n) => n)),
      ]);
      const { stdout, exit_code } = await command(sandboxes, "cat", {}, { input });
      assert.deepEqual([stdout, exit_code], [input, 0]);
    },
    async failure() {
      const failed = await command(sandboxes, "echo oh >&2; exit 7");
      assert.deepEqual([failed.exit_code, failed.stderr.toString()], [7, "oh\n"]);
      assert.equal((await command(sandboxes, "exec /no/such")).exit_code, 127);
      assert.equal((await command(sandboxes, "echo fine")).text, "fine\n");
    },
    async input() {
      const wrong: Partial<SandboxSpec>[] = [
        { name: "../x" },
        { argv: [] },
        { argv: ["echo", "a\0b"] },
        { env: { "A B": "x" } },
        { cwd: "tmp" },
        { mounts: [{ source: "/etc", target: "/x", mode: "rw" }] },
        { mounts: [{ source: "/etc", target: "/usr/x", mode: "ro" }] },
      ];
      for (const more of wrong) await refused(() => command(sandboxes, "true", more), "InvalidParams");
    },
    async limits() {
      for (const name of ["memoryBytes", "processes", "fileBytes", "tmpBytes", "cpus"]) {
        for (const value of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
          const limits = { ...LIMITS, [name]: value };
          await refused(() => command(sandboxes, "true", { limits }), "InvalidParams");
        }
      }
      await refused(() => command(sandboxes, "true", {}, { timeoutMs: 0 }), "InvalidParams");
      await refused(() => command(sandboxes, "true", {}, { outputBytes: Number.NaN }), "InvalidParams");
    },
  };
}

type Bound = "memory" | "time" | "output" | "processes" | "disk";

function bounds(sandboxes: Sandboxes): Pick<Fixture["scenarios"], Bound> {
  return {
    async memory() {
      const limits = { ...LIMITS, memoryBytes: 64 * MIB };
      const { limit } = await command(sandboxes, "head -c 400M /dev/zero | tail", { limits });
      assert.equal(limit, "memory");
    },
    async time() {
      const result = await command(sandboxes, "trap '' TERM; while :; do :; done", {}, { timeoutMs: 5000 });
      assert.deepEqual([result.limit, result.signal], ["time", "SIGKILL"]);
    },
    async output() {
      const result = await command(sandboxes, "seq 100000", {}, { outputBytes: 1000 });
      assert.equal(result.truncated, true);
      assert.match(result.text, /^1\n[\s\S]*bytes left out[\s\S]*\n100000\n$/);
      assert.ok(result.stdout.length < 1100);
      const flood = await command(sandboxes, "yes", {}, { outputBytes: 1000, floodBytes: MIB });
      assert.equal(flood.limit, "output");
    },
    async processes() {
      const limits = { ...LIMITS, processes: 20 };
      const script = "for i in $(seq 100); do sleep 100 & done 2>&1; echo all";
      const { text } = await command(sandboxes, script, { limits }, { timeoutMs: 60_000 });
      assert.match(text, /fork|Resource temporarily/);
    },
    async disk() {
      const limits = { ...LIMITS, tmpBytes: MIB };
      const full = await command(sandboxes, "head -c 8M /dev/zero > /tmp/x", { limits });
      assert.match(full.stderr.toString(), /No space left/);
      const file = { ...LIMITS, fileBytes: MIB };
      const big = await command(sandboxes, "exec head -c 8M /dev/zero > /tmp/x", { limits: file });
      assert.equal(big.limit, "file");
    },
  };
}

type Apart = "network" | "host" | "environment" | "tenants";

function walls(sandboxes: Sandboxes, dataDir: string): Pick<Fixture["scenarios"], Apart> {
  return {
    async network() {
      let heard = 0;
      const server = createServer(() => {
        heard += 1;
      }).listen(0, "127.0.0.1");
      await once(server, "listening");
      const address = server.address();
      const port = typeof address === "object" ? address?.port : 0;
      const tries = [`127.0.0.1/${port}`, "192.0.2.1/80", "169.254.169.254/80"];
      const script = tries.map((to) => `(: <>/dev/tcp/${to}) 2>/dev/null && echo through`).join("; ");
      assert.equal((await command(sandboxes, script)).text, "");
      assert.equal(heard, 0);
      server.close();
    },
    async host() {
      const script = `ls -d ${dataDir} /root /home /etc/shadow /sys /var ${import.meta.dirname}; echo x > /usr/x; echo x > /x`;
      const { text, stderr } = await command(sandboxes, script);
      assert.equal(text, "");
      assert.equal(stderr.toString().trim().split("\n").length, 9);
    },
    async environment() {
      const { text } = await command(sandboxes, "", { argv: ["env"], env: { MINE: "1" } });
      const known = ["HOME", "LANG", "LOGNAME", "MINE", "PATH", "PWD", "TMPDIR", "USER"];
      const names = text
        .trim()
        .split("\n")
        .map((line) => line.split("=")[0]);
      assert.deepEqual(names.sort(), known);
      assert.equal((await command(sandboxes, "cat /proc/1/environ")).text, "");
    },
    async tenants() {
      const one = await waiting(sandboxes, "echo secret > /tmp/one; echo ready; exec sleep 1000");
      const script = `ls /tmp; ps -eo args; ls -d /proc/[0-9]*; kill -9 ${one.pid}`;
      const { text } = await command(sandboxes, script);
      assert.doesNotMatch(text, /one|sleep/);
      assert.ok(isRunning(allProcesses().get(one.pid) ?? { pid: 0, started: "" }));
      await one.kill();
    },
  };
}

function lifetime(sandboxes: Sandboxes): Pick<Fixture["scenarios"], "cancel" | "list" | "counted"> {
  return {
    async cancel() {
      const running = await waiting(sandboxes, NASTY_TREE);
      const tree = treeOf(running.pid, allProcesses());
      await running.kill();
      assert.deepEqual(tree.filter(isRunning), []);
      const slot = await sandboxes.slots.acquire();
      const young = await sandboxes.start(specFor(slot, ["sleep", "1000"]));
      await young.kill();
      assert.deepEqual(await young.exited, { code: null, signal: "SIGKILL" });
      await slot.release();
    },
    async list() {
      const pair = await Promise.all([1, 2].map(() => waiting(sandboxes, "echo ready; exec sleep 1000")));
      const listed = () => sandboxes.run.list().filter((one) => pair.includes(one));
      assert.equal(listed().length, 2);
      await pair[0]?.kill();
      assert.deepEqual(listed(), [pair[1]]);
      await pair[1]?.kill();
      assert.deepEqual(listed(), []);
    },
    async counted() {
      const names = ["start", "signal", "kill", "command", "terminal"];
      const before = await Promise.all(names.map((name) => countOf("run", name)));
      const recording = recordSpans();
      let spans: string[] = [];
      try {
        await command(sandboxes, "true");
        const slot = await sandboxes.slots.acquire();
        const { argv, ...spec } = specFor(slot, []);
        const terminal = await sandboxes.run.startTerminal({ ...spec, size: { cols: 80, rows: 24 } });
        await terminal.signal("SIGCONT");
        await terminal.kill();
        await refused(() => sandboxes.start(specFor(slot, [])), "InvalidParams");
        await slot.release();
        spans = recording.finished().map(({ name }) => name);
      } finally {
        await recording.stop();
      }
      const after = await Promise.all(names.map((name) => countOf("run", name)));
      for (const [index, name] of names.entries()) {
        const counted = (after[index] ?? 0) - (before[index] ?? 0);
        assert.ok(counted > 0, name);
        assert.equal(spans.filter((span) => span === `sandbox.run.${name}`).length, counted, name);
      }
    },
  };
}

/** In sandboxes of their own, which they close. */
const ends: Pick<Fixture["scenarios"], "leftovers" | "closed"> = {
  async leftovers() {
    const own = await openForTest();
    const [running] = await Promise.all([
      waiting(own.sandboxes, NASTY_TREE),
      waiting(own.sandboxes, "echo ready; exec sleep 1000"),
    ]);
    const launcher = own.sandboxes.launcherPid ?? 0;
    const tree = [...treeOf(running.pid, allProcesses()), ...treeOf(launcher, allProcesses())];
    await own.sandboxes.close();
    assert.deepEqual(tree.filter(isRunning), []);
    assert.deepEqual(await readdir(own.dataDir), []);
    await own[Symbol.asyncDispose]();
  },
  async closed() {
    await using own = await openForTest();
    const slot = await own.sandboxes.slots.acquire();
    await own.sandboxes.run.close();
    await refused(() => own.sandboxes.start(specFor(slot, ["true"])), "Unavailable");
  },
};

export const runFixture: FixtureMaker = {
  name: "run",
  async open() {
    const opened = await openForTest();
    const { sandboxes, dataDir } = opened;
    const scenarios: Record<Feature, (() => Promise<void>) | string> = {
      ...answers(sandboxes),
      ...bounds(sandboxes),
      ...walls(sandboxes, dataDir),
      ...lifetime(sandboxes),
      ...ends,
    };
    return {
      engine: sandboxes.run,
      availability: await sandboxes.run.probe(),
      scenarios,
      [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
    };
  },
};
