import type { SystemLayout } from "../../host.ts";
import type { SandboxSpec } from "../../types.ts";

const INSIDE_UID = "1000";
/** Room for what programs leave in /run while they work; nothing does by design. */
const GATEWAY = "/run/gateway.sock";

export const DEFAULT_ENV = {
  PATH: "/usr/local/bin:/usr/bin:/bin",
  HOME: "/tmp",
  TMPDIR: "/tmp",
  USER: "user",
  LOGNAME: "user",
  LANG: "C.UTF-8",
} as const;

/**
 * Starts the bridge, waits until its port listens (read from the kernel: a trial connection would reach
 * the gateway), then becomes the program. The bridge is not the program's child, which may wait for any.
 */
const BRIDGE_SCRIPT = `
socat=$1 port=$2 hex=$3; shift 3
("$socat" -t 300 "TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr,backlog=64" UNIX-CONNECT:${GATEWAY} </dev/null >/dev/null 2>&1 &)
up= tries=0
while [ -z "$up" ]; do
  while read -r _ address _ state _ <&3; do
    [ "$address $state" = "0100007F:$hex 0A" ] && up=1
  done 3</proc/net/tcp
  [ -n "$up" ] && break
  tries=$((tries + 1))
  if [ "$tries" -gt 1000 ]; then echo "sandbox: the bridge did not come up" >&2; exit 111; fi
  sleep 0.003
done
exec "$@"`;

/** Variables that change what runs before the program's first line; see `bwrapCommand`. */
const isLoaders = (name: string) => name.startsWith("LD_") || name === "GLIBC_TUNABLES";

/** File descriptors the launcher hands to bubblewrap. */
const FD = { args: 3, seccomp: 4, status: 5 } as const;

export interface BwrapInput {
  spec: SandboxSpec;
  system: SystemLayout;
  /** Host directory holding passwd, group, hosts and nsswitch.conf for the inside. */
  etcDir: string;
}

/** Options for `--args FD`: neither they nor the environment appear in anybody's process list. */
export function bwrapOptions({ spec, system, etcDir }: BwrapInput): string[] {
  const shared = String(spec.limits.tmpBytes);
  const env = { ...DEFAULT_ENV, ...spec.env };
  return [
    ...["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"],
    ...["--uid", INSIDE_UID, "--gid", INSIDE_UID, "--cap-drop", "ALL", "--hostname", "sandbox", "--clearenv"],
    ...Object.entries(env).flatMap(([name, value]) => (isLoaders(name) ? [] : ["--setenv", name, value])),
    ...system.binds.flatMap((path) => ["--ro-bind", path, path]),
    ...system.links.flatMap(([target, path]) => ["--symlink", target, path]),
    ...["passwd", "group", "hosts", "nsswitch.conf"].flatMap((name) => [
      "--ro-bind",
      `${etcDir}/${name}`,
      `/etc/${name}`,
    ]),
    ...["--proc", "/proc", "--dev", "/dev"],
    ...["--perms", "1777", "--size", shared, "--tmpfs", "/dev/shm", "--remount-ro", "/dev"],
    ...["--perms", "1777", "--size", shared, "--tmpfs", "/tmp", "--size", "1048576", "--tmpfs", "/run"],
    ...spec.mounts.flatMap(({ source, target, mode }) => [
      mode === "rw" ? "--bind" : "--ro-bind",
      source,
      target,
    ]),
    ...(spec.bridge === undefined ? [] : ["--bind", spec.bridge.socketPath, GATEWAY]),
    // The root is a tmpfs without a size of its own: nothing may be written there.
    ...["--remount-ro", "/run", "--remount-ro", "/"],
    ...["--chdir", spec.cwd, "--seccomp", String(FD.seccomp), "--json-status-fd", String(FD.status)],
  ];
}

/** Host paths of what runs inside before the program, each the same there. */
export interface BwrapHelpers {
  /** Goes before all: what sets limits from inside. */
  wrapper?: readonly string[];
  socat: string;
}

/**
 * bubblewrap's visible command line: the program, and before it the bridge where one is asked for. What the user
 * wants loaded into the program (LD_PRELOAD) is set last, or it would be loaded into what sets limits too.
 */
export function bwrapCommand(spec: SandboxSpec, { wrapper = [], socat }: BwrapHelpers): string[] {
  const loaders = Object.entries(spec.env).filter(([name]) => isLoaders(name));
  const command = [...spec.argv];
  if (loaders.length > 0) command.unshift("env", ...loaders.map(([name, value]) => `${name}=${value}`));
  if (spec.bridge !== undefined) {
    const { port } = spec.bridge;
    const hex = port.toString(16).toUpperCase().padStart(4, "0");
    command.unshift("/bin/sh", "-c", BRIDGE_SCRIPT, "sh", socat, String(port), hex);
  }
  return ["--args", String(FD.args), "--", ...wrapper, ...command];
}

/** The pid the program gets inside, with a bridge (whose shell becomes the program) or without. */
export const PROGRAM_INSIDE_PID = 2;
/** The pid the bridge gets inside: init, the shell, a subshell, and socat are the first four. */
export const BRIDGE_INSIDE_PID = 4;
