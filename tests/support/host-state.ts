import { readdirSync, readFileSync, readlinkSync } from "node:fs";

const SETTINGS = [
  "kernel/core_pattern",
  "kernel/hostname",
  "kernel/domainname",
  "kernel/modprobe",
  "kernel/panic",
  "kernel/sysrq",
  "kernel/randomize_va_space",
  "kernel/dmesg_restrict",
  "vm/overcommit_memory",
  "vm/swappiness",
  "fs/suid_dumpable",
  "fs/protected_hardlinks",
  "net/ipv4/ip_forward",
  "user/max_user_namespaces",
];

const textOf = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
};

/** What no sandbox may change of the machine, to be compared before and after. */
export function hostState(): Record<string, unknown> {
  const namespaces = readdirSync("/proc/self/ns").map((name) => readlinkSync(`/proc/self/ns/${name}`));
  return {
    ...Object.fromEntries(SETTINGS.map((name) => [name, textOf(`/proc/sys/${name}`)])),
    mounts: textOf("/proc/self/mounts"),
    modules: textOf("/proc/modules")?.replaceAll(/ \d+ (-|[\w,]+) Live .*/g, ""),
    swaps: textOf("/proc/swaps")?.split("\n").length,
    interfaces: readdirSync("/sys/class/net"),
    devices: readdirSync("/dev").sort(),
    passwd: textOf("/etc/passwd"),
    status: /^(Uid|CapEff|Seccomp):.*$/gm.exec(textOf("/proc/self/status") ?? "")?.[0],
    namespaces,
  };
}
