import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { openSync } from "node:fs";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { lastJson } from "#sandbox/testing/clone.ts";
import { type AttackedHost, HOSTS, openHost } from "../support/attacked-host.ts";

/** Every descriptor of every process inside, and what it leads to. */
const DESCRIPTORS = `for p in /proc/[0-9]*; do for fd in $p/fd/*; do echo "$fd $(readlink $fd)"; done; done`;
const ENVIRONMENTS = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'; env; set";

describe.each(HOSTS)("with %s", (name) => {
  let host: AttackedHost;
  const secret = `secret-${randomBytes(8).toString("hex")}`;
  beforeAll(async () => {
    // As in a server that has keys in its environment, and files open that no child was meant to get.
    process.env.CDS_TEST_SECRET = secret;
    openSync("/etc/hostname", "r");
    host = await openHost(name);
  });
  afterAll(async () => {
    delete process.env.CDS_TEST_SECRET;
    await host?.[Symbol.asyncDispose]();
  });

  describe("17 what is inherited", () => {
    it("[MU-3] of open files only the three streams", async () => {
      const { stdout } = await host.attack({ sh: DESCRIPTORS });
      const found = stdout
        .trim()
        .split("\n")
        .map((line) => line.split(" "))
        .filter(([, target]) => target !== undefined && target !== "");
      const own = found.filter(
        ([path, target]) => path?.startsWith("/proc/1/") === false && !/^(\/proc|pipe:)/.test(target ?? ""),
      );
      expect(own.length).toBeGreaterThanOrEqual(3);
      for (const [path, target] of own) expect(`${path} ${target}`).toMatch(/\/fd\/[0-2] socket:/);
      // bubblewrap's init keeps an eventfd; neither its options nor the filter nor the status are left open.
      const init = found.filter(([path]) => path?.startsWith("/proc/1/"));
      expect(
        init.filter(
          ([, target]) => !/^(socket:|anon_inode:\[(eventfd|signalfd)\]|\/dev\/null)/.test(target ?? ""),
        ),
      ).toEqual([]);
    });

    it("[MU-3] nothing of the server's environment or command line", async () => {
      const { stdout } = await host.attack({ sh: ENVIRONMENTS, env: { MINE: "given" } });
      expect(stdout).toContain("MINE=given");
      expect(stdout).not.toContain(secret);
      for (const word of ["vitest", "NODE_", "npm_", "attack-child", "--setenv", "--bind", "cds-test"]) {
        expect(stdout).not.toContain(word);
      }
      const names = stdout.split("\n").flatMap((line) => /^([A-Z][A-Z_]+)=/.exec(line)?.[1] ?? []);
      const expected = [
        "ATTACK_MARK",
        "HOME",
        "IFS",
        "LANG",
        "LOGNAME",
        "MINE",
        "OPTIND",
        "PATH",
        "PPID",
        "PWD",
      ];
      const shells = ["OLDPWD", "TMPDIR", "USER", "SHLVL"];
      expect([...new Set(names)].filter((each) => ![...expected, ...shells].includes(each))).toEqual([]);
    });

    it("[MU-3] no core is dumped, and no limit is without end that matters", async () => {
      const { stdout } = await host.attack({
        sh: "ulimit -c; ulimit -f; ulimit -n; ulimit -l; ulimit -Hc; ulimit -Hf; ulimit -f unlimited 2>/dev/null; ulimit -f; umask",
      });
      const [core, file, open, locked, hardCore, hardFile, raised, mask] = stdout.trim().split("\n");
      expect([core, hardCore]).toEqual(["0", "0"]);
      // In blocks of 512 bytes.
      expect([file, hardFile, raised]).toEqual([32_768, 32_768, 32_768].map(String));
      expect(Number(open)).toBeLessThanOrEqual(1 << 20);
      expect(locked).not.toBe("unlimited");
      expect(mask).toMatch(/^0?022|0?077$/);
    });
  });
});

it("17 [MU-3] nothing that a shell left open in the server, with any number, reaches a sandbox", async () => {
  const harness = new URL("../../sandbox/testing/harness.ts", import.meta.url).href;
  const script = `
    import { openForTest, shell } from ${JSON.stringify(harness)};
    await using opened = await openForTest({ tier: "rlimits" });
    const { stdout } = await shell(opened.sandboxes, ${JSON.stringify(`${DESCRIPTORS}; ${ENVIRONMENTS}`)});
    console.log(JSON.stringify(stdout));`;
  const inherit = `exec 9</etc/passwd 77</etc/passwd 251</etc/passwd 500<>/dev/null; exec "$@"`;
  const secret = `secret-${randomBytes(8).toString("hex")}`;
  const args = [
    "-c",
    inherit,
    "bash",
    process.execPath,
    "--input-type=module-typescript",
    "-e",
    script,
    secret,
  ];
  const { stdout } = await promisify(execFile)("bash", args, {
    timeout: 60_000,
    env: { ...process.env, ALSO: secret },
  });
  const seen: string = lastJson(stdout);
  expect(seen).toMatch(/\/fd\/0 socket:/);
  expect(seen).not.toContain("passwd");
  expect(seen).not.toContain(secret);
});
