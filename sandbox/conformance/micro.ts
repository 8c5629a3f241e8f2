import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { MicroEngine } from "../engines/micro/engine.ts";
import { RAM_PREFIX, SHARED_MEMORY } from "../engines/micro/reconcile.ts";
import type { VmSpec } from "../engines/micro/settings.ts";
import type { Vm } from "../engines/micro/vm.ts";
import { allProcesses, treeOf } from "../process-tree.ts";
import { openForTest, silent, type TestSandboxes } from "../testing/harness.ts";
import { countOf, recordSpans } from "../testing/spans.ts";
import type { Fixture, FixtureMaker } from "./features.ts";
import { refused } from "./refused.ts";

const MIB = 1024 * 1024;
/** What the agent gives to every program, and what a shell adds. */
const GUEST_VARIABLES = [
  "PATH",
  "HOME",
  "USER",
  "LOGNAME",
  "TMPDIR",
  "LANG",
  "TZ",
  "PWD",
  "OLDPWD",
  "SHLVL",
  "_",
];

const shell = async (vm: Vm, script: string) =>
  String((await vm.execute({ argv: ["sh", "-c", script] })).stdout).trim();

const works = async (vm: Vm) => assert.equal(await shell(vm, "echo fine"), "fine");

/** Pids of the emulators below a launcher. */
const emulators = (launcher: number | undefined) =>
  treeOf(launcher ?? 0, allProcesses())
    .filter(({ command }) => command.startsWith("qemu-system"))
    .map(({ pid }) => pid);

/** One engine, and a machine that scenarios share until one of them ends it: starting takes a second or two. */
class MicroFixture {
  readonly opened: TestSandboxes;
  readonly engine: MicroEngine;
  #shared: Promise<Vm> | undefined;

  constructor(opened: TestSandboxes, engine: MicroEngine) {
    this.opened = opened;
    this.engine = engine;
  }

  start(more: Partial<VmSpec> = {}): Promise<Vm> {
    return this.engine.start({ image: "node", ...more });
  }

  async shared(): Promise<Vm> {
    this.#shared ??= this.start();
    const vm = await this.#shared;
    if (this.engine.list().includes(vm)) return vm;
    this.#shared = undefined;
    return this.shared();
  }

  async work(): Promise<void> {
    const vm = await this.shared();
    const code =
      "process.stdin.on('data', (d) => process.stdout.write(Buffer.concat([Buffer.from('äöü€\\0'), d])))";
    const { stdout, exitCode } = await vm.execute({ code, stdin: new Uint8Array([0, 255, 10]) });
    assert.deepEqual(stdout, Buffer.concat([Buffer.from("äöü€\0"), Buffer.from([0, 255, 10])]));
    assert.equal(exitCode, 0);
    await using python = await this.start({ image: "python" });
    const answer = await python.execute({
      code: "import part\nprint(part.text)",
      files: { "part.py": "text = 'ß' * 3" },
    });
    assert.equal(String(answer.stdout), "ßßß\n");
  }

  async failure(): Promise<void> {
    const vm = await this.shared();
    const { stderr, exitCode } = await vm.execute({ argv: ["sh", "-c", "echo broken >&2; exit 3"] });
    assert.deepEqual([String(stderr), exitCode], ["broken\n", 3]);
    const killed = await vm.execute({ argv: ["sh", "-c", "kill -SEGV $$"] });
    assert.deepEqual([killed.exitCode, killed.signal], [null, "SIGSEGV"]);
    await refused(() => vm.execute({ argv: ["no-such-program"] }), "InvalidParams");
    await works(vm);
  }

  async input(): Promise<void> {
    const vm = await this.shared();
    await refused(() => this.start({ image: "perl" as "node" }), "InvalidParams");
    await refused(() => this.start({ network: "all" as "none" }), "InvalidParams");
    await refused(() => vm.execute({}), "InvalidParams");
    await refused(() => vm.execute({ code: "1", argv: ["true"] }), "InvalidParams");
    await refused(() => vm.execute({ argv: ["a\0b"] }), "InvalidParams");
    await refused(() => vm.execute({ argv: ["true"], files: { "../x": "" } }), "InvalidParams");
    await refused(() => vm.execute({ argv: ["true"], env: { "a b": "" } }), "InvalidParams");
    await refused(() => this.engine.restore("snp_none"), "NotFound");
    await works(vm);
  }

  async limits(): Promise<void> {
    const vm = await this.shared();
    for (const none of [0, -1, Number.NaN]) {
      for (const name of ["memoryBytes", "cpus", "diskBytes", "idleMs"]) {
        await refused(() => this.start({ [name]: none }), "InvalidParams");
      }
      for (const name of ["timeoutMs", "outputBytes", "processes"]) {
        await refused(() => vm.execute({ argv: ["true"], [name]: none }), "InvalidParams");
      }
    }
  }

  async memory(): Promise<void> {
    const vm = await this.shared();
    const hungry = "all = []\nwhile True: all.append(b'x' * (16 << 20))";
    const { exitCode, signal } = await vm.execute({ argv: ["python3", "-c", hungry] });
    assert.ok(signal === "SIGKILL" || exitCode === 1, `${signal ?? exitCode}`);
    await works(vm);
  }

  async time(): Promise<void> {
    const vm = await this.shared();
    await refused(() => vm.execute({ argv: ["sleep", "1000"], timeoutMs: 300 }), "Timeout");
    assert.equal(
      await shell(vm, "ps -e 2>/dev/null | grep -c sleep || true").then((found) => found || "0"),
      "0",
    );
    await works(vm);
  }

  async output(): Promise<void> {
    const vm = await this.shared();
    const flood = await vm.execute({ argv: ["sh", "-c", "head -c 3000000 /dev/zero"], outputBytes: 1000 });
    assert.deepEqual([flood.stdout.length, flood.truncated, flood.exitCode], [1000, true, 0]);
  }

  async processes(): Promise<void> {
    const vm = await this.shared();
    const script = "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done; echo all";
    const { stdout, exitCode } = await vm.execute({ argv: ["sh", "-c", script], processes: 8 });
    assert.ok(exitCode !== 0 && String(stdout) === "", "30 processes within a limit of 8");
    await works(vm);
  }

  async disk(): Promise<void> {
    await using vm = await this.start({ diskBytes: 8 * MIB });
    const { exitCode } = await vm.execute({ argv: ["sh", "-c", "head -c 20000000 /dev/zero > /work/big"] });
    assert.notEqual(exitCode, 0);
    const bytes = Number(await shell(vm, "cat /work/big /tmp/* /home/user/* 2>/dev/null | wc -c"));
    assert.ok(bytes > 0 && bytes <= 8 * MIB, `${bytes} bytes on a disk of 8 MiB`);
    await shell(vm, "rm /work/big");
    await works(vm);
  }

  async network(): Promise<void> {
    const vm = await this.shared();
    assert.equal(await shell(vm, "ls /sys/class/net"), "lo");
    const script =
      "import socket\ntry: socket.create_connection(('1.1.1.1', 53), 2)\nexcept OSError as e: print(e.errno)";
    const { stdout } = await vm.execute({ argv: ["python3", "-c", script] });
    // ENETUNREACH: there is no way, so nothing was waited for.
    assert.equal(String(stdout), "101\n");
  }

  async host(): Promise<void> {
    const vm = await this.shared();
    const paths = [
      this.opened.dataDir,
      import.meta.filename,
      process.execPath,
      "/etc/shadow",
      "/dev/shm/ram",
    ];
    for (const path of paths) assert.equal(await shell(vm, `[ -e '${path}' ] || echo none`), "none", path);
    assert.equal(await shell(vm, "cat /proc/sys/kernel/hostname"), "sandbox");
  }

  async environment(): Promise<void> {
    const vm = await this.shared();
    const names = (await shell(vm, "env")).split("\n").map((line) => line.split("=", 1)[0] ?? "");
    assert.deepEqual(
      names.filter((name) => !GUEST_VARIABLES.includes(name)),
      [],
    );
    assert.equal(await shell(vm, "tr -d '\\0' < /proc/cmdline | grep -c CDS_ || true"), "0");
  }

  async tenants(): Promise<void> {
    const vm = await this.shared();
    await using other = await this.start();
    await shell(vm, "echo mine > /work/mine; echo mine > /tmp/mine");
    await shell(vm, "(sleep 1000 &) ; true");
    assert.equal(await shell(other, "cat /work/mine /tmp/mine 2>/dev/null; ls /work"), "");
    assert.equal(await shell(vm, "cat /work/mine"), "mine");
  }

  async cancel(): Promise<void> {
    const vm = await this.shared();
    const abort = new AbortController();
    const onOutput = () => abort.abort();
    const spinning = { argv: ["sh", "-c", "echo up; while :; do :; done"], signal: abort.signal, onOutput };
    await refused(() => vm.execute(spinning), "Cancelled");
    await works(vm);
    await refused(() => this.start({ signal: AbortSignal.abort() }), "Cancelled");
    const victim = await this.start();
    const before = emulators(this.opened.sandboxes.launcherPid).length;
    const closed = Promise.withResolvers<void>();
    const ending = () => victim.close().then(closed.resolve, closed.reject);
    await refused(
      () => victim.execute({ argv: ["sh", "-c", "echo up; sleep 1000"], onOutput: () => void ending() }),
      "Unavailable",
    );
    await closed.promise;
    assert.deepEqual(await victim.exited, { reason: "stopped" });
    assert.equal(emulators(this.opened.sandboxes.launcherPid).length, before - 1);
  }

  async list(): Promise<void> {
    const before = this.engine.list();
    const vm = await this.start();
    assert.deepEqual(this.engine.list(), [...before, vm]);
    await vm.close();
    assert.deepEqual(this.engine.list(), before);
  }

  async leftovers(): Promise<void> {
    const own = await openForTest();
    const engine = await openEngine(own);
    const vm = await engine.start({ image: "python" });
    await vm.execute({ argv: ["sh", "-c", "(setsid sleep 1000 &); true"] });
    await vm.snapshot();
    const { launcherPid } = own.sandboxes;
    assert.equal(emulators(launcherPid).length, 1);
    await engine.close();
    assert.deepEqual(emulators(launcherPid), []);
    const places = [SHARED_MEMORY, join(own.dataDir, "micro")];
    const names = (await Promise.all(places.map((place) => readdir(place)))).flat();
    // Of this process there may be the fixture's own template.
    const left = names.filter((name) => name.startsWith(RAM_PREFIX) && name.includes(`-${process.pid}-`));
    assert.ok(left.length <= 1, left.join());
    assert.equal(own.sandboxes.slots.inUse, 0);
    await own[Symbol.asyncDispose]();
  }

  async counted(): Promise<void> {
    const recording = recordSpans();
    const names = ["start", "execute", "snapshot", "restore", "delete_snapshot", "stop"];
    const before = await Promise.all(names.map((name) => countOf("micro", name)));
    let spans: string[] = [];
    try {
      const vm = await this.start();
      await works(vm);
      const id = await vm.snapshot();
      await vm.close();
      const restored = await this.engine.restore(id);
      await works(restored);
      await restored.close();
      await this.engine.deleteSnapshot(id);
      spans = recording.finished().map(({ name }) => name);
    } finally {
      await recording.stop();
    }
    const after = await Promise.all(names.map((name) => countOf("micro", name)));
    assert.deepEqual(
      after.map((count, index) => count - (before[index] ?? 0)),
      [1, 2, 1, 1, 1, 2],
    );
    for (const name of names) assert.ok(spans.includes(`sandbox.micro.${name}`), `no span for ${name}`);
  }

  async closed(): Promise<void> {
    const own = await openForTest();
    const engine = await openEngine(own);
    await engine.close();
    await refused(() => engine.start({ image: "node" }), "Unavailable");
    await own[Symbol.asyncDispose]();
  }
}

const openEngine = ({ sandboxes, dataDir }: TestSandboxes) =>
  MicroEngine.open({ host: sandboxes, dir: join(dataDir, "micro"), log: silent });

export const microFixture: FixtureMaker = {
  name: "micro",
  async open(): Promise<Fixture> {
    const opened = await openForTest();
    const engine = await openEngine(opened);
    const fixture = new MicroFixture(opened, engine);
    return {
      engine,
      availability: await engine.probe(),
      scenarios: {
        work: () => fixture.work(),
        failure: () => fixture.failure(),
        input: () => fixture.input(),
        limits: () => fixture.limits(),
        memory: () => fixture.memory(),
        time: () => fixture.time(),
        output: () => fixture.output(),
        processes: () => fixture.processes(),
        disk: () => fixture.disk(),
        network: () => fixture.network(),
        host: () => fixture.host(),
        environment: () => fixture.environment(),
        tenants: () => fixture.tenants(),
        cancel: () => fixture.cancel(),
        list: () => fixture.list(),
        leftovers: () => fixture.leftovers(),
        counted: () => fixture.counted(),
        closed: () => fixture.closed(),
      },
      async [Symbol.asyncDispose]() {
        await engine.close();
        await opened[Symbol.asyncDispose]();
      },
    };
  },
};
