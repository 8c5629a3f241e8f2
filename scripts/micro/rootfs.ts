import { chmod, copyFile, lstat, mkdir, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Debian, type Package, tool } from "./debian.ts";

const PACKAGES = [
  ...[
    "base-files",
    "netbase",
    "libc-bin",
    "dash",
    "coreutils",
    "grep",
    "sed",
    "gawk",
    "findutils",
    "diffutils",
  ],
  ...["gzip", "tar", "python3", "libstdc++6", "libatomic1"],
];
/** Wanted by something above, and of no use in a machine without a package manager and without a network. */
const WITHOUT = ["dpkg", "perl-base", "debconf", "gcc-12-base", "gcc-14-base", "readline-common"];
const UNUSED = [
  ...[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
  ],
  ...["usr/share/common-licenses", "usr/share/menu", "usr/share/pixmaps", "usr/share/applications", "var"],
];
const UNUSED_PYTHON = ["test", "idlelib", "lib2to3", "ensurepip", "pydoc_data", "turtledemo", "tkinter"];
const FILES: Record<string, string> = {
  "etc/passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\nuser:x:1000:1000:user:/home/user:/bin/sh\n",
  "etc/group": "root:x:0:\ntty:x:5:\nuser:x:1000:\n",
  "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
  "etc/hostname": "sandbox\n",
  "etc/resolv.conf": "",
};

/** Lay out the guest's root in `root` and pack it into `image`, without running anything a package brings. */
export async function makeRootfs(options: {
  debian: Debian;
  tools: string;
  root: string;
  image: string;
  node: string;
}): Promise<Package[]> {
  const { debian, root } = options;
  const packages = await debian.fetch(PACKAGES, WITHOUT);
  for (const name of ["bin", "sbin", "lib", "lib64"]) {
    await mkdir(join(root, "usr", name), { recursive: true });
    await symlink(`usr/${name}`, join(root, name));
  }
  await debian.unpack(packages, root);
  await tidy(root);
  await compilePython(root);
  await mkdir(join(root, "usr/local/bin"), { recursive: true });
  await copyFile(options.node, join(root, "usr/local/bin/node"));
  await chmod(join(root, "usr/local/bin/node"), 0o755);
  await pack(options);
  return packages;
}

async function tidy(root: string): Promise<void> {
  for (const path of UNUSED) await rm(join(root, path), { recursive: true, force: true });
  for (const path of ["proc", "sys", "dev", "run", "tmp", "work", "home/user", "root", "var"]) {
    await mkdir(join(root, path), { recursive: true });
  }
  await symlink("../tmp", join(root, "var/tmp"));
  for (const [path, content] of Object.entries(FILES)) await writeFile(join(root, path), content);
  await rm(join(root, "etc/hosts"), { force: true });
  // The agent writes it, with the machine's name.
  await symlink("../run/hosts", join(root, "etc/hosts"));
  // What the packages' own scripts would have linked.
  for (const [from, to] of [
    ["usr/bin/sh", "dash"],
    ["usr/bin/awk", "gawk"],
    ["usr/bin/python", "python3"],
  ] as const) {
    if ((await lstat(join(root, from)).catch(() => undefined)) === undefined)
      await symlink(to, join(root, from));
  }
  await tool("sh", ["-c", 'find "$1" -xdev -type f -perm /6000 -exec chmod a-s {} +', "sh", root]);
}

/**
 * Without compiled modules every start of Python would compile some 60 files. The guest's own Python does it, through
 * the guest's own loader; compiled files name no time and no path of this machine (`-B`: what the compiler imports
 * itself would be written with both).
 */
async function compilePython(root: string): Promise<void> {
  const libs = join(root, "usr/lib");
  const version = (await readdir(libs)).find((name) => /^python3\.\d+$/.test(name));
  if (version === undefined) throw new Error("the package python3 brought no library");
  const library = join(libs, version);
  for (const name of UNUSED_PYTHON) await rm(join(library, name), { recursive: true, force: true });
  const env = { PATH: "/usr/bin:/bin", PYTHONHOME: join(root, "usr"), PYTHONHASHSEED: "0" };
  const loader = join(libs, "x86_64-linux-gnu/ld-linux-x86-64.so.2");
  const python = ["--library-path", `${libs}/x86_64-linux-gnu`, join(root, "usr/bin", version), "-S", "-B"];
  const paths = ["-s", root, "-p", "/", "--invalidation-mode", "unchecked-hash"];
  await tool(loader, [...python, "-m", "compileall", "-q", ...paths, library], env);
  if (!(await stat(join(library, "__pycache__"))).isDirectory()) throw new Error("Python compiled nothing");
}

/** A squashfs in which all is root's and nothing has a time. */
async function pack(options: { debian: Debian; tools: string; root: string; image: string }): Promise<void> {
  const { debian, tools, root, image } = options;
  let program = "mksquashfs";
  let env: NodeJS.ProcessEnv = process.env;
  if (!(await tool("sh", ["-c", "command -v mksquashfs || :"]))) {
    // Beside our files rather than on the machine: it is needed this once, and an ordinary user can do it.
    const packages = await debian.fetch(["squashfs-tools"], ["libc6", "gcc-12-base", "libgcc-s1"]);
    await debian.unpack(packages, tools);
    program = join(tools, "usr/bin/mksquashfs");
    env = {
      ...env,
      LD_LIBRARY_PATH: ["usr/lib", "lib"].map((lib) => `${tools}/${lib}/x86_64-linux-gnu`).join(":"),
    };
  }
  await rm(image, { force: true });
  const reproducible = ["-all-root", "-mkfs-time", "0", "-all-time", "0", "-no-xattrs", "-no-exports"];
  await tool(
    program,
    [root, image, "-comp", "lz4", "-noappend", "-no-progress", "-quiet", ...reproducible],
    env,
  );
}
