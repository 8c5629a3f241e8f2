import { existsSync } from "node:fs";
import { mkdir, readdir, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { allFamilies, cgroupMounts } from "../limits/cgroup-files.ts";
import { allProcesses, isRunning, readProcess } from "../process-tree.ts";
import { until } from "../testing/harness.ts";
import { ALIVE, DEAD, FOREIGN, PLAIN, Scene, WAIT } from "../testing/orphans.ts";
import { processSource } from "./orphan-processes.ts";

const isRoot = process.getuid?.() === 0;
const SLOT_USER = 1_900_000_000 + 60_000;
const launcherFile = "sandbox/launcher/main.ts";

let scene: Scene;
beforeEach(async () => {
  scene = await Scene.open();
});
afterEach(() => scene[Symbol.asyncDispose]());

describe("processes", () => {
  it("in a sandbox of a server that is no more are ended, those of living and foreign ones are not", async () => {
    const [dead, alive, foreign] = [
      await scene.sandboxOf(DEAD),
      await scene.sandboxOf(ALIVE),
      await scene.sandboxOf(FOREIGN),
    ];
    await scene.clear();
    expect([dead, alive, foreign].map(isRunning)).toEqual([false, true, true]);
    expect(await readdir(scene.base)).toEqual([FOREIGN, ALIVE].sort());
  });

  it("of strangers are left alone, whatever they look like", async () => {
    const home = join(scene.base, DEAD);
    await mkdir(join(home, "etc"), { recursive: true });
    await writeFile(join(home, "etc", "passwd"), "");
    const strangers = [
      // Named after a dead server, working in its directory, with its files open.
      await scene.start("sh", ["-c", `exec 3<etc/passwd; echo ready; exec tail -f /dev/null "$0"`, DEAD], {
        cwd: home,
      }),
      // Somebody else's bubblewrap, in a session of its own or in one without a leader.
      await scene.start("bwrap", [...PLAIN, "sh", "-c", WAIT], { detached: true }),
      await scene.start("setsid", ["sh", "-c", `bwrap ${PLAIN.join(" ")} sleep 1000 & echo $!`]),
      // A leader's number that was written down belongs to another process by now, or there is none any more.
      await scene.start("sh", ["-c", WAIT], { detached: true }),
      await scene.forsaken("sleep 1000"),
      // Somebody reads the launcher's source, or runs it for a living server.
      await scene.start("sh", ["-c", `echo ready; exec tail -f /dev/null ${launcherFile} ${DEAD}`]),
      await scene.start("sh", ["-c", `echo ready; exec tail -f /dev/null ${launcherFile} ${ALIVE}`], {
        detached: true,
      }),
    ];
    const [, , , leader, led] = strangers;
    const records = [`${leader?.pid} ${Number(leader?.started) - 1}`, `${led?.session} 1`, "garbage", ""];
    await writeFile(join(home, "launchers"), records.join("\n"));
    if (isRoot) {
      const who = { uid: SLOT_USER, gid: SLOT_USER, cwd: "/" };
      strangers.push(
        // One of the users that are ours alone, but neither bubblewrap nor without a leader.
        await scene.forsaken("sleep 1000", who),
        await scene.start("bwrap", [...PLAIN, "sh", "-c", WAIT], { ...who, detached: true }),
        // bubblewrap by name only.
        await scene.forsaken(`bash -c 'exec -a bwrap sleep 1000'`, who),
      );
    }
    await scene.clear();
    expect(strangers.map((info) => [info.command, isRunning(info)])).toEqual(
      strangers.map((info) => [info.command, true]),
    );
    expect(await readdir(scene.base)).toEqual([]);
  });

  it("that lead or are left in a launcher's session are ended, by what its server wrote down", async () => {
    const home = join(scene.base, DEAD);
    await mkdir(home);
    // Not by its program, which could be any Node, but by what it runs, and for whom.
    const wait = "setInterval(() => undefined, 1000); console.log('ready')";
    await mkdir(join(scene.base, "sandbox", "launcher"), { recursive: true });
    await writeFile(join(scene.base, launcherFile), wait);
    const launcher = await scene.start(process.execPath, [join(scene.base, launcherFile), DEAD], {
      detached: true,
    });
    process.kill(launcher.pid, "SIGSTOP");
    const gone = `bwrap ${PLAIN.join(" ")} sleep 1000 & sleep 1000 & echo $!`;
    const other = await scene.start("setsid", ["sh", "-c", gone]);
    await writeFile(join(home, "launchers"), `${other.session} 1\n`);
    const half = await until(() => {
      const found = [...allProcesses().values()].filter(
        ({ session, command }) => session === other.session && command === "bwrap",
      );
      return found.length > 0 && found;
    });
    await scene.clear();
    expect(isRunning(launcher)).toBe(false);
    expect(half.filter(isRunning)).toEqual([]);
    // Not one of our programs.
    expect(isRunning(other)).toBe(true);
    expect(await readdir(scene.base)).toEqual(["sandbox"]);
  });

  it.runIf(isRoot)("of a slot's user in bubblewrap that nobody leads any more are ended", async () => {
    const who = { uid: SLOT_USER, gid: SLOT_USER, cwd: "/" };
    const orphan = await scene.forsaken(`bwrap ${PLAIN.join(" ")} sleep 1000`, who);
    await until(() => readProcess(orphan.pid)?.command === "bwrap");
    await scene.clear();
    expect(isRunning(orphan)).toBe(false);
  });
});

describe.runIf(isRoot)("control groups", () => {
  it("in every hierarchy are emptied and removed, also of what is frozen or forks without end", async () => {
    const groups = (await allFamilies()).map((family) => join(family, DEAD, "old"));
    for (const group of groups) await mkdir(group, { recursive: true });
    const enter = groups.map((group) => `echo $$ > ${group}/cgroup.procs`).join("\n");
    const forking = "while :; do sleep 0.05 & done";
    const forker = await scene.start("sh", ["-c", `${enter}\necho $$; ${forking}`]);
    const frozen = await scene.start("sh", ["-c", `${enter}\n${WAIT}`]);
    const freezer = groups.find((group) => existsSync(join(group, "freezer.state")));
    if (freezer !== undefined) await writeFile(join(freezer, "freezer.state"), "FROZEN");
    await scene.clear();
    expect([forker, frozen].filter(isRunning)).toEqual([]);
    expect(groups.filter((group) => existsSync(join(group, "..")))).toEqual([]);
  });

  it("of others that hold a process still make it a failure, told with its number", async () => {
    const freezer = (await cgroupMounts()).find(({ controllers }) => controllers.includes("freezer"));
    if (freezer === undefined) return;
    const group = join(freezer.path, `cds-test-${process.pid}`);
    await mkdir(group);
    const dead = await scene.sandboxOf(DEAD);
    await writeFile(join(group, "cgroup.procs"), String(dead.pid));
    await writeFile(join(group, "freezer.state"), "FROZEN");
    const [found] = await processSource(async () => [], 300).list();
    await expect(found?.remove()).rejects.toMatchObject({
      code: "Timeout",
      message: expect.stringContaining(String(dead.pid)),
    });
    await writeFile(join(group, "freezer.state"), "THAWED");
    await until(() => !isRunning(dead));
    expect(await found?.remove()).toBe("gone");
    await until(() =>
      rmdir(group).then(
        () => true,
        () => false,
      ),
    );
  });
});
