import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openForTest, shell, specFor } from "#sandbox/testing/harness.ts";
import { asFiles } from "../support/attack.ts";
import { type AttackedHost, HOSTS, openHost } from "../support/attacked-host.ts";
import { processesNaming } from "../support/leftovers.ts";
import { call, machineProgram } from "../support/machine-program.ts";

const isRoot = process.getuid?.() === 0;
const PORT = 45_117;

/** A user at work: files, sockets, shared memory and a secret. Says so when it hears or is sent anything. */
const victim = (secret: string) => `
const fs = require("fs"), net = require("net"), cp = require("child_process");
for (const dir of ["/tmp", "/dev/shm"]) fs.writeFileSync(dir + "/mine", ${JSON.stringify(secret)}, { mode: 0o666 });
const status = cp.spawnSync("/attack/share").status;
const heard = (what) => console.log("heard " + what);
for (const name of ["SIGUSR1", "SIGUSR2", "SIGTERM", "SIGHUP", "SIGINT"]) process.on(name, heard);
const serve = (where) => new Promise((resolve) => net.createServer((s) => { heard("a caller"); s.end(${JSON.stringify(secret)}); }).listen(where, resolve));
(async () => {
  await serve({ port: ${PORT}, host: "127.0.0.1" });
  await serve("/tmp/socket");
  await serve("\\0cds-" + ${JSON.stringify(secret)}.slice(0, 6));
  cp.spawn("sleep", ["1000"], { env: { SECRET: ${JSON.stringify(secret)} } });
  console.log("shared " + status);
})();`;

/** Another user, who looks for all of it. */
const neighbour = (secret: string) => `
const fs = require("fs"), net = require("net"), cp = require("child_process");
const found = {};
const attempt = async (name, act) => { try { found[name] = await act(); } catch (e) { found[name] = e.code || String(e); } };
const connect = (where) => () => new Promise((resolve, reject) => net.connect(where).on("connect", () => resolve("connected")).on("error", reject));
(async () => {
  await attempt("tmp", () => fs.readdirSync("/tmp").filter((name) => name !== "node-compile-cache"));
  await attempt("shm", () => fs.readdirSync("/dev/shm"));
  await attempt("run", () => fs.readdirSync("/run"));
  await attempt("tcp", connect({ port: ${PORT}, host: "127.0.0.1" }));
  await attempt("abstract", connect("\\0cds-" + ${JSON.stringify(secret)}.slice(0, 6)));
  await attempt("unix", connect("/tmp/socket"));
  for (const name of ["shm", "msg", "sem"]) await attempt("sysv " + name, () => cp.spawnSync("/attack/" + name).status);
  await attempt("sockets", () => fs.readFileSync("/proc/net/unix", "utf8").includes("cds-"));
  await attempt("users' processes", () => fs.readdirSync("/proc").filter((p) => +p > 0 && fs.readFileSync("/proc/" + p + "/environ", "latin1").includes(${JSON.stringify(secret)}.slice(3))).length);
  // Whatever numbers the others' processes may have: nobody hears it.
  for (const name of ["SIGUSR1", "SIGTERM", "SIGKILL"]) for (let pid = 30; pid < 4000; pid++) try { process.kill(pid, name); found.killed = pid; } catch {}
  await attempt("secret in files", () => cp.spawnSync("grep", ["-rlsI", ${JSON.stringify(secret)}.slice(3), "/tmp", "/dev/shm", "/run", "/etc", "/opt"]).stdout.toString());
  console.log(JSON.stringify(found));
  process.on("SIGTERM", () => 0);
  process.kill(-1, "SIGTERM");
})();`;

describe.each(HOSTS)("with %s", (name) => {
  let host: AttackedHost;
  beforeAll(async () => {
    host = await openHost(name);
  });
  afterAll(() => host?.[Symbol.asyncDispose]());

  describe("20 neighbours", () => {
    it("[MU-3] one sees nothing of another: no file, socket, process, shared memory, and reaches none", async () => {
      const secret = randomBytes(9).toString("hex");
      const key = randomBytes(4).readUInt32LE() & 0x7fffffff;
      // IPC_CREAT | 0666; by its number alone it is only looked for.
      const share = [
        call("shmget", key, 4096, 0o1666),
        call("msgget", key, 0o1666),
        call("semget", key, 1, 0o1666),
      ];
      const damage = await host.attack({
        node: victim(secret),
        files: asFiles({ share: machineProgram(share) }),
        meanwhile: {
          node: neighbour(secret),
          files: asFiles({
            shm: machineProgram([call("shmget", key, 0, 0)]),
            msg: machineProgram([call("msgget", key, 0)]),
            sem: machineProgram([call("semget", key, 0, 0)]),
          }),
        },
      });
      expect(damage).toMatchObject({ stdout: "shared 0\n", cutShort: true, left: [] });
      const ENOENT = 2;
      expect(JSON.parse(damage.meanwhile?.stdout || "null")).toEqual({
        tmp: [],
        shm: [],
        run: [],
        tcp: "ECONNREFUSED",
        abstract: "ECONNREFUSED",
        unix: "ENOENT",
        ...{ "sysv shm": ENOENT, "sysv msg": ENOENT, "sysv sem": ENOENT },
        sockets: false,
        "users' processes": 0,
        "secret in files": "",
      });
    });
  });
});

describe("20 slots", () => {
  it("[MU-3] [MU-6] who gets a slot after another finds nothing of theirs", async () => {
    await using opened = await openForTest({ slots: 1 });
    const { sandboxes } = opened;
    const first = await sandboxes.slots.acquire();
    const work = await first.makeDir("work");
    const mark = `mark-${randomBytes(8).toString("hex")}`;
    const more = { mounts: [{ source: work, target: "/work", mode: "rw" as const }], env: { mark } };
    await shell(
      sandboxes,
      "echo mine > /work/a; echo mine > /tmp/a; (setsid sleep 1000 &); chmod 0 /work/a; mkdir -p /work/d/e; chmod 0 /work/d",
      { ...more, slot: first },
    );
    await sandboxes.start(specFor(first, ["sleep", "1000"], more));
    await first.release();
    const second = await sandboxes.slots.acquire();
    expect(second).toMatchObject({ index: first.index, uid: first.uid });
    expect(second.dir).not.toBe(first.dir);
    expect(second.socketPath).not.toBe(first.socketPath);
    expect(existsSync(first.dir)).toBe(false);
    expect(processesNaming(mark)).toEqual([]);
    expect(await readdir(second.dir)).toEqual([]);
    if (second.uid !== null) {
      for (const kind of ["shm", "msg", "sem"]) {
        expect(readFileSync(`/proc/sysvipc/${kind}`, "utf8").split(/\s+/)).not.toContain(String(second.uid));
      }
      const places = ["/dev/shm", "/var/tmp", "-xdev", "-uid", String(second.uid)];
      expect((await promisify(execFile)("find", places)).stdout).toBe("");
    }
    const again = await second.makeDir("work");
    const seen = await shell(sandboxes, "ls -A /work /tmp /dev/shm; ps -e 2>/dev/null | grep -c sleep", {
      slot: second,
      mounts: [{ source: again, target: "/work", mode: "rw" }],
    });
    expect(seen.stdout.replaceAll(/^0$/gm, "").trim()).toBe("/dev/shm:\n\n/tmp:\n\n/work:");
    await second.release();
  });

  it.runIf(isRoot)(
    "[MU-3] the user of one slot, even outside of any sandbox, enters no other's directory",
    async () => {
      await using opened = await openForTest();
      const { slots } = opened.sandboxes;
      const [mine, other] = [await slots.acquire(), await slots.acquire()];
      const dir = await other.makeDir("work");
      const as = { uid: mine.uid ?? 0, gid: mine.gid ?? 0 };
      for (const argv of [
        ["ls", dir],
        ["ls", other.dir],
        ["ls", `${other.dir}/..`],
        ["touch", `${dir}/x`],
        ["ls", opened.dataDir],
      ]) {
        const [file = "", ...args] = argv;
        const refused = promisify(execFile)(file, args, { ...as, cwd: "/" });
        await expect(refused, argv.join(" ")).rejects.toThrow(/Permission denied/);
      }
      expect((await stat(other.dir)).mode & 0o777).toBe(0o700);
      await Promise.all([mine.release(), other.release()]);
    },
  );
});
