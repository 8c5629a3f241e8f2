import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Debian, type Package } from "./micro/debian.ts";
import { makeInitrd } from "./micro/initrd.ts";
import { unpackKernel } from "./micro/kernel.ts";
import { makeRootfs } from "./micro/rootfs.ts";

/**
 * Builds what the micro engine boots, into `.runtime/micro`: called by micro-image.sh, which holds the lock.
 * Files carry their content's hash in their names and `manifest.json` names the current ones, so machines that
 * run on older files keep them, and a build that breaks changes nothing.
 */

const KERNEL = "linux-image-cloud-amd64";
/** Raise it when the same sources must be built differently. */
const FORMAT = 1;

const top = dirname(dirname(fileURLToPath(import.meta.url)));
const home = join(top, ".runtime/micro");
const guest = join(top, "sandbox/engines/micro/guest");
const AGENT = ["agent.py", "machine.py", "program.py"].map((name) => join(guest, name));
const manifestFile = join(home, "manifest.json");
const { values } = parseArgs({ options: { force: { type: "boolean", default: false } } });

const sha256 = (data: string | Buffer) => createHash("sha256").update(data).digest("hex");

/** What the images are made from, as far as it is ours: new packages come with `--force`. */
async function inputs(): Promise<{ rootfs: string; all: string }> {
  const hash = async (paths: readonly string[]) =>
    sha256((await Promise.all(paths.map((path) => readFile(path, "utf8")))).join("\0"));
  const scripts = join(top, "scripts/micro");
  const rootfs = await hash([join(scripts, "debian.ts"), join(scripts, "rootfs.ts")]);
  const rest = await hash([
    ...[join(scripts, "kernel.ts"), join(scripts, "initrd.ts")],
    ...[join(guest, "init.sh"), ...AGENT],
  ]);
  const common = `${FORMAT} ${process.version} ${process.arch}`;
  return { rootfs: sha256(`${common} ${rootfs}`), all: sha256(`${common} ${rootfs} ${rest}`) };
}

interface Output {
  file: string;
  bytes: number;
  sha256: string;
}

interface Manifest {
  format: number;
  version: string;
  inputs: { rootfs: string; all: string };
  kernel: Output;
  initrd: Output;
  rootfs: Output;
  node: string;
  packages: { name: string; version: string; sha256: string }[];
}

async function readManifest(): Promise<Manifest | undefined> {
  try {
    const manifest = JSON.parse(await readFile(manifestFile, "utf8")) as Manifest;
    const there = [manifest.kernel, manifest.initrd, manifest.rootfs].every(({ file }) =>
      existsSync(join(home, file)),
    );
    return manifest.format === FORMAT && there ? manifest : undefined;
  } catch {
    return undefined;
  }
}

/** Move a finished file to its place, named by its content. */
async function place(source: string, name: string, extension: string): Promise<Output> {
  const data = await readFile(source);
  const hash = sha256(data);
  const file = `${name}-${hash.slice(0, 16)}${extension}`;
  await rename(source, join(home, file));
  return { file, bytes: data.length, sha256: hash };
}

async function build(work: string, old: Manifest | undefined): Promise<Manifest> {
  const debian = new Debian(join(home, "packages"));
  const current = await inputs();
  // What is the agent's alone changes often: no reason to ask servers for packages, or to change them.
  const earlier = values.force ? [] : (old?.packages ?? []);
  const kernelPackage =
    (await debian.kept(earlier.find(({ name }) => name.startsWith("linux-image-")))) ??
    (await debian.fetchOne(await debian.meaning(KERNEL)));
  const busybox =
    (await debian.kept(earlier.find(({ name }) => name === "busybox-static"))) ??
    (await debian.fetchOne("busybox-static"));
  const boot = join(work, "boot");
  await debian.unpack([kernelPackage, busybox], boot);
  const image = await find(join(boot, "boot"), "vmlinuz-");
  const packed = await readFile(image);
  await writeFile(join(work, "kernel"), unpackKernel(packed) ?? packed);
  const modules = await find(
    join(boot, existsSync(join(boot, "usr/lib/modules")) ? "usr/lib/modules" : "lib/modules"),
    "",
  );
  const program = existsSync(join(boot, "bin/busybox")) ? "bin/busybox" : "usr/bin/busybox";
  const initrd = await makeInitrd({
    busybox: join(boot, program),
    init: join(guest, "init.sh"),
    agent: AGENT,
    modules,
  });
  await writeFile(join(work, "initrd"), initrd);
  const outputs = {
    kernel: await place(join(work, "kernel"), "vmlinux", ""),
    initrd: await place(join(work, "initrd"), "initrd", ".cpio"),
  };
  const mine: Package[] = [kernelPackage, busybox];
  let rootfs = old?.rootfs;
  let packages =
    old?.packages.filter(({ name }) => name !== kernelPackage.name && name !== busybox.name) ?? [];
  if (rootfs === undefined || old?.inputs.rootfs !== current.rootfs || values.force) {
    const made = await makeRootfs({
      debian,
      tools: join(work, "tools"),
      root: join(work, "root"),
      image: join(work, "rootfs"),
      node: process.execPath,
    });
    rootfs = await place(join(work, "rootfs"), "rootfs", ".squashfs");
    mine.push(...made);
    packages = made;
    await debian.prune(mine);
  }
  const named = [kernelPackage, busybox, ...packages].map(({ name, version, sha256: sum }) => ({
    name,
    version,
    sha256: sum,
  }));
  const version = sha256(
    [outputs.kernel, outputs.initrd, rootfs].map((output) => output.sha256).join(),
  ).slice(0, 16);
  return {
    format: FORMAT,
    version,
    inputs: current,
    ...outputs,
    rootfs,
    node: process.version,
    packages: named,
  };
}

async function find(dir: string, prefix: string): Promise<string> {
  const name = (await readdir(dir)).find((one) => one.startsWith(prefix));
  if (name === undefined) throw new Error(`the kernel's package has no ${prefix} in ${dir}`);
  return join(dir, name);
}

/** Keep what the old and the new manifest name: machines of a running server may still start from the old. */
async function sweep(manifests: readonly (Manifest | undefined)[]): Promise<void> {
  const kept = new Set(
    manifests
      .flatMap((one) => (one === undefined ? [] : [one.kernel, one.initrd, one.rootfs]))
      .map(({ file }) => file),
  );
  for (const name of await readdir(home)) {
    const stale = /^(vmlinux|initrd|rootfs)-/.test(name) && !kept.has(name);
    if (stale || name.startsWith("work-")) await rm(join(home, name), { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  await mkdir(home, { recursive: true });
  const old = await readManifest();
  if (!values.force && old?.inputs.all === (await inputs()).all) return;
  const started = performance.now();
  console.error("building the images of the micro engine ...");
  await sweep([old]);
  const work = await mkdtemp(join(home, "work-"));
  try {
    const manifest = await build(work, old);
    await writeFile(join(work, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
    await rename(join(work, "manifest.json"), manifestFile);
    await sweep([old, manifest]);
    const bytes = manifest.kernel.bytes + manifest.initrd.bytes + manifest.rootfs.bytes;
    const seconds = Math.round((performance.now() - started) / 1000);
    console.error(`images of the micro engine: ${Math.round(bytes / 2 ** 20)} MiB in ${seconds} s`);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

try {
  await main();
} catch (error) {
  console.error(
    `the images of the micro engine were not built: ${error instanceof Error ? error.message : error}`,
  );
  process.exitCode = 1;
}
