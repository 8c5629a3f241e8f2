import { describe, expect, it } from "vitest";
import { systemLayout } from "../../host.ts";
import type { Slot } from "../../slots.ts";
import type { SandboxSpec } from "../../types.ts";
import { bwrapCommand, bwrapOptions } from "./bwrap-args.ts";
import { checkSpec } from "./policy.ts";

const socat = "/usr/bin/socat";
const slot = { dir: "/data/slot-1" } as Slot;
const good: SandboxSpec = {
  name: "agent-1",
  argv: ["opencode", "acp"],
  env: { TOKEN: "s3cret" },
  cwd: "/workspace",
  mounts: [
    { source: "/data/slot-1/work", target: "/workspace", mode: "rw" },
    { source: "/data/slot-1/home", target: "/home/user", mode: "rw" },
    { source: "/opt/opencode", target: "/opt/opencode", mode: "ro" },
  ],
  limits: { memoryBytes: 1, processes: 1, fileBytes: 1, tmpBytes: 4096 },
  slot,
};
const mount = (source: string, target: string, mode: "ro" | "rw" = "ro") => ({
  mounts: [{ source, target, mode }],
});

describe("what a sandbox is asked for", () => {
  it("is taken when it can be isolated", () => {
    expect(() => checkSpec(good)).not.toThrow();
    expect(() =>
      checkSpec({ ...good, cwd: "/", mounts: [], bridge: { socketPath: "/x/s", port: 4010 } }),
    ).not.toThrow();
    expect(() => checkSpec({ ...good, limits: { ...good.limits, cpus: 0.5 } })).not.toThrow();
  });

  it.each<[string, Partial<SandboxSpec>]>([
    ["a name that is a path", { name: "../x" }],
    ["no name", { name: "" }],
    ["no program", { argv: [] }],
    ["an empty program", { argv: [""] }],
    ["NUL in an argument", { argv: ["a", "b\0--bind\0/\0/"] }],
    ["NUL in a variable", { env: { A: "x\0--bind" } }],
    ["a name of a variable that is none", { env: { "A=B": "x" } }],
    ["a relative working directory", { cwd: "work" }],
    ["a climbing working directory", { cwd: "/work/../etc" }],
    ["a relative source", mount("work", "/work")],
    ["a climbing source", mount("/data/slot-1/../slot-2", "/work", "rw")],
    ["a source with an end too many", mount("/data/slot-1/work/", "/work")],
    ["NUL in a target", mount("/opt", "/opt\0")],
    ["the root as target", mount("/opt", "/")],
    ...[
      "/usr",
      "/usr/bin/x",
      "/etc",
      "/etc/passwd",
      "/proc/1",
      "/dev/shm",
      "/bin",
      "/lib64/x",
      "/sys",
      "/run",
    ].map((target): [string, Partial<SandboxSpec>] => [`the target ${target}`, mount("/opt", target)]),
    ["the bridge's place as target", mount("/opt", "/run/gateway.sock")],
    ["writing outside the slot", mount("/home/somebody", "/work", "rw")],
    ["writing to a neighbour whose name begins alike", mount("/data/slot-10/work", "/work", "rw")],
    ["writing to the slot's own directory", mount("/data/slot-1", "/work", "rw")],
    ["a zero limit", { limits: { ...good.limits, processes: 0 } }],
    ["a limit that is no number", { limits: { ...good.limits, memoryBytes: Number.NaN } }],
    ["half a byte", { limits: { ...good.limits, fileBytes: 1.5 } }],
    ["no CPU", { limits: { ...good.limits, cpus: 0 } }],
    ["unbounded CPU", { limits: { ...good.limits, cpus: Number.POSITIVE_INFINITY } }],
    ["a privileged bridge port", { bridge: { socketPath: "/x", port: 80 } }],
    ["half a bridge port", { bridge: { socketPath: "/x", port: 4010.5 } }],
    ["a bridge port too high", { bridge: { socketPath: "/x", port: 65_536 } }],
    ["a relative bridge socket", { bridge: { socketPath: "x", port: 4010 } }],
  ])("is refused with %s", (_what, change) => {
    expect(() => checkSpec({ ...good, ...change })).toThrow(
      expect.objectContaining({ code: "InvalidParams" }),
    );
  });

  it.each([
    ["/home/user", "/home/user/.config"],
    ["/home/user/.config", "/home/user"],
    ["/work", "/work"],
  ])("is refused with the targets %s and %s, of which one lies in the other", (one, other) => {
    const mounts = [
      { source: "/data/slot-1/a", target: one, mode: "rw" as const },
      { source: "/opt/b", target: other, mode: "ro" as const },
    ];
    expect(() => checkSpec({ ...good, mounts })).toThrow(/inside each other/);
  });

  it("is refused with a source that another mount can write to, not with one shown twice", () => {
    const outer = { source: "/data/slot-1/a", target: "/a", mode: "rw" as const };
    const inner = { source: "/data/slot-1/a/b", target: "/b", mode: "ro" as const };
    for (const mounts of [
      [outer, inner],
      [inner, outer],
    ]) {
      expect(() => checkSpec({ ...good, mounts })).toThrow(/sources/);
    }
    expect(() => checkSpec({ ...good, mounts: [{ ...outer, mode: "ro" }, inner] })).not.toThrow();
    expect(() =>
      checkSpec({ ...good, mounts: [outer, { ...outer, target: "/b", mode: "ro" }] }),
    ).not.toThrow();
  });
});

describe("what bubblewrap is told", () => {
  const system = { links: [["usr/bin", "/bin"]] as const, binds: ["/usr", "/lib"] };
  const options = (spec: SandboxSpec) =>
    bwrapOptions({ spec, system: { ...system, links: [...system.links] }, etcDir: "/rt/etc" });

  it("keeps secrets and host paths off the command line", () => {
    const line = bwrapCommand(good, { socat }).join(" ");
    expect(line).toBe("--args 3 -- opencode acp");
    const wrapped = bwrapCommand(good, { socat, wrapper: ["prlimit", "--nproc=9", "--"] });
    expect(wrapped.slice(2)).toEqual(["--", "prlimit", "--nproc=9", "--", "opencode", "acp"]);
    const bridged = bwrapCommand(
      { ...good, bridge: { socketPath: "/host/secret.sock", port: 4010 } },
      { socat },
    );
    expect(bridged.slice(-6)).toEqual(["sh", socat, "4010", "0FAA", "opencode", "acp"]);
    expect(bridged.join(" ")).not.toContain("/host");
  });

  it("loads nothing of the user's before the program itself", () => {
    const env = { LD_PRELOAD: "/workspace/x.so", GLIBC_TUNABLES: "a=b", TOKEN: "s3cret" };
    const spec = { ...good, env, bridge: { socketPath: "/host/s", port: 4010 } };
    expect(options(spec).join(" ")).not.toMatch(/LD_PRELOAD|GLIBC/);
    const line = bwrapCommand(spec, { socat, wrapper: ["prlimit", "--nproc=9", "--"] });
    expect(line.slice(2, 6)).toEqual(["--", "prlimit", "--nproc=9", "--"]);
    expect(line.slice(-5)).toEqual([
      "env",
      "LD_PRELOAD=/workspace/x.so",
      "GLIBC_TUNABLES=a=b",
      "opencode",
      "acp",
    ]);
  });

  it("shares nothing, allows nothing, and closes what it opened", () => {
    const told = options(good);
    for (const flag of [
      "--unshare-all",
      "--unshare-user",
      "--disable-userns",
      "--die-with-parent",
      "--new-session",
    ]) {
      expect(told).toContain(flag);
    }
    expect(told).not.toContain("--share-net");
    const text = told.join(" ");
    expect(text).toContain("--cap-drop ALL");
    expect(text).toContain("--setenv TOKEN s3cret");
    expect(text).toContain("--ro-bind /usr /usr --ro-bind /lib /lib --symlink usr/bin /bin");
    expect(text).toContain("--bind /data/slot-1/work /workspace");
    expect(text).toContain("--ro-bind /opt/opencode /opt/opencode");
    expect(text).toContain("--size 4096 --tmpfs /tmp");
    // Every mount point is made before anything is closed, and the root is closed last.
    const closes = told.lastIndexOf("--remount-ro");
    expect(told[closes + 1]).toBe("/");
    expect(told.slice(closes)).not.toContain("--bind");
  });

  it("shows the gateway's socket only where one is asked for", () => {
    expect(options(good).join(" ")).not.toContain("gateway");
    const bridged = options({ ...good, bridge: { socketPath: "/host/s", port: 4010 } });
    expect(bridged.join(" ")).toContain("--bind /host/s /run/gateway.sock");
  });

  it("finds this machine's system directories, and no private keys", () => {
    const layout = systemLayout();
    expect(layout.binds).toContain("/usr");
    expect([...layout.links.map(([, path]) => path), ...layout.binds]).toContain("/bin");
    expect(layout.binds.filter((path) => path === "/etc/ssl" || path === "/etc")).toEqual([]);
  });
});
