import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { countsProcessesPerNamespace, findProgram, readSystemFile } from "./host.ts";
import { instanceState, newInstanceName } from "./instance.ts";
import { cgroupMounts, FAMILY, removeInstanceGroups } from "./limits/cgroup-files.ts";
import { openCgroup2 } from "./limits/cgroup2.ts";
import { findScopeCommand } from "./limits/systemd.ts";
import { explain } from "./probe.ts";
import { readProcess } from "./process-tree.ts";
import { probeSandbox } from "./sandboxes.ts";
import { makeTemporary, openForTest, silent, until } from "./testing/harness.ts";

const isRoot = process.getuid?.() === 0;

describe("the probe", () => {
  it("really starts a sandbox and names the way limits are enforced", async () => {
    await using opened = await openForTest();
    const found = await opened.sandboxes.probe();
    expect(found).toMatchObject({ available: true, tier: opened.sandboxes.tier });
    expect(await opened.sandboxes.probe()).toBe(found);
    expect(opened.sandboxes.slots.inUse).toBe(0);
  });

  it("tells of weaker limits, and what would make them better", async () => {
    await using opened = await openForTest({ tier: "rlimits" });
    const { available, reasons, hint } = await opened.sandboxes.probe();
    expect(available).toBe(true);
    expect(reasons.join(" ")).toMatch(/250 ms/);
    expect(hint).toMatch(/Delegate=yes/);
  });

  it("answers for itself alone, and leaves nothing", async () => {
    const dataDir = await makeTemporary();
    expect(await probeSandbox({ dataDir, log: silent })).toMatchObject({ available: true });
    await rm(dataDir, { recursive: true });
  });

  it("says what is wrong where sandboxes cannot be had", async () => {
    const dataDir = await makeTemporary();
    const answer = await probeSandbox({ dataDir, log: silent, tier: "systemd" });
    if (answer.available) expect(answer.tier).toBe("systemd");
    else expect(answer.reasons.join(" ")).toMatch(/systemd/);
    await rm(dataDir, { recursive: true });
  });

  it.each([
    [{ apparmor_restrict_unprivileged_userns: "1" }, /docs\/apparmor\/bwrap/],
    [{ unprivileged_userns_clone: "0" }, /unprivileged_userns_clone=1/],
    [{ max_user_namespaces: "0" }, /max_user_namespaces/],
    [{}, /container/i],
  ])("explains %j", (switches, hint) => {
    const read = (path: string) =>
      (switches as Record<string, string>)[path.slice(path.lastIndexOf("/") + 1)];
    expect(explain(read)).toMatch(hint);
  });
});

describe("what the machine is asked", () => {
  it("which programs there are", () => {
    expect(findProgram("sh")).toMatch(/^\/.*\/sh$/);
    expect(findProgram("no-such-program-anywhere")).toBeUndefined();
    expect(readSystemFile("/no/such/file")).toBeUndefined();
  });

  it("whether processes are counted per namespace", () => {
    expect(["5.10.0-x", "5.14.1", "5.4", "6.1.0-13-amd64", "4.19"].map(countsProcessesPerNamespace)).toEqual([
      false,
      true,
      false,
      true,
      false,
    ]);
  });

  it("who left what", () => {
    const [namespace, pid, started] = newInstanceName().split("-");
    expect(instanceState(`${namespace}-${pid}-${started}-7`)).toBe("alive");
    expect(instanceState(`${namespace}-${pid}-1-7`)).toBe("dead");
    expect(instanceState(`${namespace}-999999999-1-7`)).toBe("dead");
    expect(instanceState(`1-${pid}-${started}-7`)).toBe("foreign");
    expect(instanceState("programs")).toBe("other");
  });
});

describe("control groups", () => {
  it.runIf(isRoot)(
    "of a server that is no more are emptied and removed, frozen processes included",
    async () => {
      await using first = await openForTest();
      if (first.sandboxes.tier === "rlimits") return;
      const mount = (await cgroupMounts()).find(({ controllers }) => controllers.includes("freezer"));
      if (mount === undefined) return;
      const [namespace] = newInstanceName().split("-");
      const dead = `${namespace}-999999999-1-1`;
      const group = `${mount.path}/${FAMILY}/${dead}/old`;
      execFileSync("mkdir", ["-p", group]);
      const script = `sleep 1000 >/dev/null 2>&1 & echo $! > ${group}/cgroup.procs; echo FROZEN > ${group}/freezer.state; echo $!`;
      const pid = Number(execFileSync("sh", ["-c", script], { encoding: "utf8" }));
      // Another server of this machine that starts at this moment may be quicker.
      await removeInstanceGroups([`${mount.path}/${FAMILY}`], dead);
      await until(() => (readProcess(pid)?.state ?? "Z") === "Z" && !existsSync(group));
    },
  );

  it("of version 2 are used only where the memory controller can be had", async () => {
    const controllers = readSystemFile("/sys/fs/cgroup/cgroup.controllers") ?? "";
    const opening = openCgroup2(newInstanceName());
    if (controllers.includes("memory") && isRoot) await (await opening).close();
    else await expect(opening).rejects.toThrow();
  });

  it("systemd is asked only by an ordinary user whose manager runs", async () => {
    const command = await findScopeCommand();
    if (isRoot) expect(command).toBeUndefined();
    else expect(command === undefined || command.argv.includes("Delegate=yes")).toBe(true);
  });
});
