import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readProcess } from "#sandbox/process-tree.ts";
import { until } from "#sandbox/testing/harness.ts";
import { asFiles, type Damage } from "../support/attack.ts";
import { type AttackedHost, HOSTS, openAsNobody, openHost } from "../support/attacked-host.ts";
import { processesNaming } from "../support/leftovers.ts";
import { call, machineProgram } from "../support/machine-program.ts";

const SIGCHLD = 17;
const files = asFiles({
  /** Forks for ever, and each child goes on from there in a session of its own. */
  runaway: machineProgram([call("clone", SIGCHLD, 0, 0, 0, 0), call("setsid")], {
    forever: true,
    regardless: true,
  }),
  /** Its child of vfork waits for ever, and so it waits in the kernel itself. */
  waiting: machineProgram([call("clone", 0x4100 | SIGCHLD, 0, 0, 0, 0), call("ppoll", 0, 0, 0, 0, 0)]),
});

const DAEMON = `setsid sh -c 'trap "" TERM HUP INT QUIT; exec </dev/null >/dev/null 2>&1
  (setsid sleep 1000 &); while :; do sleep 1; done' &`;

const TREES: Record<string, { sh: string; atLeast: number }> = {
  "daemons, forked twice and deaf": { sh: `(${DAEMON}) ; (${DAEMON}) ; echo go; sleep 1000`, atLeast: 6 },
  "deaf to every signal": {
    sh: `for i in 1 2 3; do sh -c 'trap "" TERM HUP INT QUIT USR1 USR2 PIPE ALRM; sleep 1000; sleep 1000' & done
      trap "" TERM HUP INT QUIT; echo go; while :; do sleep 1; done`,
    atLeast: 6,
  },
  stopped: {
    sh: "sleep 1000 & kill -STOP $!; sh -c 'kill -STOP $$; sleep 1000' & echo go; sleep 0.1; kill -STOP $$",
    atLeast: 4,
  },
  "zombies nobody collects": {
    sh: "sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 0.01 & done; echo go; exec sleep 1000'",
    atLeast: 3,
  },
  "waiting in the kernel": { sh: "/attack/waiting & /attack/waiting & echo go; wait", atLeast: 6 },
  "forking while they are killed": {
    sh: "echo go; f() { (sleep 0.003; f) & }; for i in 1 2 3 4 5; do f; done; while :; do sleep 1; done",
    atLeast: 6,
  },
  "forking without end, each in a session of its own": { sh: "echo go; exec /attack/runaway", atLeast: 20 },
};

/** The first of them do not fork for ever. */
const QUIET_TREES = 5;

describe.each(HOSTS)("with %s", (name) => {
  let host: AttackedHost;
  beforeAll(async () => {
    host = await openHost(name);
  });
  afterAll(() => host?.[Symbol.asyncDispose]());

  describe("12, 13 trees that do not want to end", () => {
    it.each(Object.entries(TREES))("[MU-6] %s: killed, none is left", async (_, { sh, atLeast }) => {
      const damage = await host.attack({ sh, files, reaches: { processes: atLeast }, endAfterMs: 250 });
      expect(damage.stdout).toBe("go\n");
      // Where nobody but the launcher counts, it may have ended a runaway before we did.
      if (damage.limit === undefined) {
        expect(damage).toMatchObject({ cutShort: true, signal: "SIGKILL" });
        expect(damage.most.processes).toBeGreaterThanOrEqual(atLeast);
      }
      expect(damage.left).toEqual([]);
    });

    it("[MU-6] all of them at once, frozen in the middle of it: killed, none is left", async () => {
      const sh = Object.values(TREES)
        .map((tree) => `(${tree.sh}) &`)
        .join("\n");
      const damage = await host.attack({
        sh: `${sh}\nwait`,
        files,
        freeze: true,
        limits: { processes: 120 },
        reaches: { processes: 31 },
        endAfterMs: 200,
      });
      if (damage.limit !== "processes") expect(damage.most.processes).toBeGreaterThan(30);
      expect(damage.left).toEqual([]);
    });

    it("[MU-6] daemons end with the program that started them, though nobody killed it", async () => {
      const damage = await host.attack({
        sh: `(${DAEMON}) ; /attack/waiting & sleep 0.2; echo go; exit 3`,
        files,
      });
      expect(damage).toMatchObject({ code: 3, stdout: "go\n", left: [], cutShort: false });
      expect(damage.most.processes).toBeGreaterThanOrEqual(5);
    });

    it("[MU-6] the launcher killed under them: none is left, and the next one starts", async () => {
      const mark = `mark-${randomBytes(8).toString("hex")}`;
      const carried: Promise<Damage>[] = [];
      // One after the other, those that fork last: beside them a start takes long.
      for (const [index, { sh }] of Object.values(TREES).entries()) {
        const own = `${mark}-${index}`;
        let isOver = false;
        const attack = host.attack({ sh, files, env: { mark: own }, limits: { processes: 30 } });
        carried.push(attack.finally(() => (isOver = true)));
        await until(() => isOver || processesNaming(own).length > 0);
      }
      await until(() => processesNaming(mark).length > 30);
      // The first one's launcher; another may have taken its place by the second round.
      process.kill(host.launcherPid, "SIGKILL");
      for (const [index, end] of (await Promise.allSettled(carried)).entries()) {
        if (end.status === "rejected") {
          // Beside one that forks a start may still be under way: it is refused, not ended.
          expect(index).toBeGreaterThanOrEqual(QUIET_TREES);
          expect(String(end.reason)).toContain("The sandbox did not start");
          continue;
        }
        expect(end.value.left).toEqual([]);
        if (end.value.limit === undefined) expect(end.value.signal).toBe("SIGKILL");
      }
      expect(processesNaming(mark)).toEqual([]);
      expect(await host.attack({ sh: "echo back" })).toMatchObject({ code: 0, stdout: "back\n" });
    });
  });
});

it.runIf(process.getuid?.() === 0)(
  "12 [MU-6] the server killed under them, as an ordinary user: none is left",
  async () => {
    await using host = await openAsNobody();
    const mark = `mark-${randomBytes(8).toString("hex")}`;
    const carried = Object.values(TREES).map(({ sh }) =>
      host.attack({ sh, files, env: { mark }, limits: { processes: 30 } }).then(
        () => "answered",
        (error: Error) => error.message,
      ),
    );
    await until(() => processesNaming(mark).length > 30);
    host.server.kill("SIGKILL");
    expect(await Promise.all(carried)).toContain("the server ended: SIGKILL");
    await until(() => processesNaming(mark).length === 0);
    await until(() => (readProcess(host.launcherPid)?.state ?? "Z") === "Z");
  },
);
