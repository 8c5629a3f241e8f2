import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { asFiles } from "../support/attack.ts";
import { type AttackedHost, HOSTS, openHost } from "../support/attacked-host.ts";
import { hostState } from "../support/host-state.ts";
import { call, machineProgram } from "../support/machine-program.ts";

/** Files of /proc and /sys that change the machine, and what is tried with each. */
const WRITES: Record<string, string> = {
  "/proc/sys/kernel/core_pattern": "|/tmp/taken",
  "/proc/sys/kernel/modprobe": "/tmp/taken",
  "/proc/sys/kernel/hostname": "taken",
  "/proc/sys/kernel/sysrq": "1",
  "/proc/sys/vm/overcommit_memory": "1",
  "/proc/sys/vm/drop_caches": "1",
  "/proc/sys/fs/suid_dumpable": "2",
  "/proc/sys/net/ipv4/ip_forward": "1",
  "/proc/sys/user/max_user_namespaces": "100000",
  "/proc/sysrq-trigger": "h",
  "/proc/1/oom_score_adj": "-1000",
  "/proc/self/oom_score_adj": "-1000",
  "/proc/self/uid_map": "0 0 1",
  "/proc/self/setgroups": "allow",
  "/proc/self/attr/current": "unconfined",
  "/proc/irq/default_smp_affinity": "1",
  "/sys/kernel/uevent_helper": "/tmp/taken",
  "/sys/power/state": "mem",
  "/sys/fs/cgroup/memory/memory.limit_in_bytes": "-1",
  "/sys/fs/cgroup/cgroup.procs": "1",
};

const READS = [
  "/proc/kcore",
  "/proc/kmsg",
  "/proc/kpagecount",
  "/proc/1/mem",
  "/proc/1/root/etc/shadow",
  "/proc/1/cwd/etc/shadow",
  "/proc/self/root/etc/shadow",
  "/proc/vmallocinfo",
  "/proc/slabinfo",
  "/proc/timer_list",
  "/sys/kernel/debug",
  "/sys/firmware/efi",
  "/sys/fs/cgroup",
  "/etc/shadow",
  "/root",
  "/home",
  "/var",
];

const script = `
${Object.entries(WRITES)
  .map(([path, value]) => `(echo '${value}' > ${path}) 2>/dev/null && echo "wrote ${path}"`)
  .join("\n")}
for f in ${READS.join(" ")}; do
  [ -n "$(if [ -d "$f" ]; then ls "$f"; else head -c 64 "$f" | tr '\\0' 0; fi 2>/dev/null)" ] && echo "read $f"
done
dmesg 2>/dev/null | head -n 1
true
`;

describe.each(HOSTS)("with %s", (name) => {
  let host: AttackedHost;
  beforeAll(async () => {
    host = await openHost(name);
  });
  afterAll(() => host?.[Symbol.asyncDispose]());

  describe("16 /proc and /sys", () => {
    it("[MU-3] nothing there can be changed, and nothing read that is not the sandbox's own", async () => {
      const before = hostState();
      const { stdout, left } = await host.attack({ sh: script });
      expect(stdout).toBe("");
      expect(left).toEqual([]);
      expect(hostState()).toEqual(before);
    });

    it("[MU-3] shows the sandbox's own processes alone", async () => {
      const { stdout } = await host.attack({
        sh: "sleep 0 & for p in /proc/[0-9]*; do readlink $p/exe; cat $p/comm $p/cmdline; echo; done; ls -d /proc/[0-9]* | wc -l; cat /proc/loadavg",
      });
      const names = stdout.match(/^(vitest|node|systemd|launcher|postgres|bash).*/gm);
      expect(names).toBeNull();
      // Outside there are many more than the few of the sandbox.
      const counted = Number(stdout.trim().split("\n").at(-2));
      expect(counted).toBeGreaterThan(1);
      expect(counted).toBeLessThanOrEqual(6);
    });

    it("[MU-3] the sandbox's first process, which any other may take over, has no more rights than they", async () => {
      const { stdout } = await host.attack({
        sh: "grep -h '^Cap\\|^Uid\\|^NoNewPrivs\\|^Seccomp:' /proc/1/status > /tmp/first; grep -h '^Cap\\|^Uid\\|^NoNewPrivs\\|^Seccomp:' /proc/self/status | diff - /tmp/first && cat /tmp/first",
      });
      expect(stdout).toMatch(/^Uid:(\t1000){4}$/m);
      expect(stdout).toMatch(/^CapEff:\t0+$/m);
      expect(stdout).toMatch(/^CapBnd:\t0+$/m);
      expect(stdout).toMatch(/^Seccomp:\t2$/m);
    });

    it("[MU-3] the environment of no process tells a secret, not even that of the sandbox's first", async () => {
      const { stdout } = await host.attack({
        sh: `for p in /proc/[0-9]*; do [ "$p" = /proc/$$ ] || tr '\\0' '\\n' < $p/environ; done 2>/dev/null | grep -v '^ATTACK_MARK\\|^OWN=' ; cat /proc/1/cmdline | tr '\\0' ' '`,
        env: { OWN: "of the program" },
      });
      for (const word of ["PATH=/", "HOME=/root", process.env.HOME ?? "/root", "VITEST", "--setenv"]) {
        const lines = stdout.split("\n").filter((line) => line.includes(word));
        // Children of the program have its defaults.
        expect(
          lines.filter((line) => !/^(PATH=\/usr\/local\/bin:\/usr\/bin:\/bin|HOME=\/tmp)$/.test(line)),
        ).toEqual([]);
      }
    });

    it("[MU-3] keys, shared memory and queues of the host are not there", async () => {
      // IPC_CREAT | 0666 under a number that nobody else has.
      const key = randomBytes(4).readUInt32LE() & 0x7fffffff;
      const { stdout } = await host.attack({
        sh: `/attack/make; echo $?; tail -n +2 /proc/sysvipc/shm | wc -l; tail -n +2 /proc/sysvipc/msg | wc -l
             ls /dev/mqueue 2>/dev/null | wc -l`,
        files: asFiles({
          make: machineProgram([call("shmget", key, 4096, 0o1666), call("msgget", key, 0o1666)]),
        }),
      });
      // It can have its own, which are all it sees...
      expect(stdout).toBe("0\n1\n1\n0\n");
      // ...and which are gone with it.
      const outside = ["shm", "msg"].map((kind) => readFileSync(`/proc/sysvipc/${kind}`, "utf8"));
      expect(outside.join(" ").split(/\s+/)).not.toContain(String(key));
    });

    it("[MU-3] of the host's directories only names of mounts are told, no file's content", async () => {
      const secret = mkdtempSync(join(tmpdir(), "cds-test-secret-"));
      writeFileSync(join(secret, "canary"), "the canary sings");
      try {
        const { stdout } = await host.attack({
          sh: `cut -d' ' -f4,5 /proc/self/mountinfo; for p in $(cut -d' ' -f4 /proc/self/mountinfo) ${secret}; do cat $p/canary; ls $p/../..; done 2>/dev/null; grep -r 'canary sings' /tmp /run /dev/shm /etc 2>/dev/null`,
        });
        expect(stdout).not.toContain("canary sings");
        const mounts = stdout.split("\n").filter((line) => /^\/\S* \/\S*$/.test(line));
        expect(mounts.length).toBeGreaterThan(5);
        expect(stdout).not.toContain(secret);
      } finally {
        rmSync(secret, { recursive: true });
      }
    });
  });
});
