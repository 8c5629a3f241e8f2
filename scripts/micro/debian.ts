import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const exec = promisify(execFile);
const DOWNLOAD_MS = 20 * 60_000;
const MAX_OUTPUT = 64 * 1024 * 1024;

export interface Package {
  name: string;
  version: string;
  file: string;
  sha256: string;
}

/** Run a program of the machine; what it says is told only when it fails. */
export async function tool(file: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env) {
  try {
    const { stdout } = await exec(file, args, { env, timeout: DOWNLOAD_MS, maxBuffer: MAX_OUTPUT });
    return stdout;
  } catch (error) {
    const { stderr = "", code } = error as { stderr?: string; code?: string };
    const lines = stderr.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("W:"));
    const reason = code === "ENOENT" ? "there is no such program" : (lines.at(-1) ?? String(error));
    throw new Error(`${file}: ${reason}`, { cause: error });
  }
}

/**
 * Packages of the machine's own distribution, in the version its lists name, without installing any: apt resolves
 * what they depend on against an empty system, so an ordinary user gets the same files as root.
 */
export class Debian {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** The packages and all they depend on, but for `without`. */
  async fetch(names: readonly string[], without: readonly string[] = []): Promise<Package[]> {
    await mkdir(join(this.#dir, "partial"), { recursive: true });
    await mkdir(join(this.#dir, "none/partial"), { recursive: true });
    const status = join(this.#dir, "status");
    await writeFile(status, "");
    const apt = (archives: string, ...args: string[]) =>
      tool("apt-get", [
        ...["-qq", "-y", "--no-install-recommends"],
        ...["-o", `Dir::State::status=${status}`, "-o", `Dir::Cache::archives=${archives}`],
        ...["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"],
        ...args,
      ]);
    // apt names only what is yet to come, so it is asked about a place where nothing is.
    const uris = await apt(join(this.#dir, "none"), "--print-uris", "install", ...names);
    const files = [...uris.matchAll(/^'[^']+' (\S+) /gm)].map(([, file = ""]) => file);
    await apt(this.#dir, "--download-only", "install", ...names);
    const wanted = files.filter((file) => !without.includes(file.split("_", 1)[0] ?? ""));
    return Promise.all(wanted.map((file) => this.#describe(file)));
  }

  /** Only the named package. */
  async fetchOne(name: string): Promise<Package> {
    const found = (await this.fetch([name])).find((one) => one.name === name);
    if (found === undefined) throw new Error(`apt does not know the package ${name}`);
    return found;
  }

  /** A package as an earlier build used it, if it is still here: no server is asked. */
  async kept(earlier: { name: string; sha256: string } | undefined): Promise<Package | undefined> {
    if (earlier === undefined || !existsSync(this.#dir)) return undefined;
    const file = (await readdir(this.#dir)).find(
      (one) => one.startsWith(`${earlier.name}_`) && one.endsWith(".deb"),
    );
    const found = file === undefined ? undefined : await this.#describe(file);
    return found?.sha256 === earlier.sha256 ? found : undefined;
  }

  /** The package that a package of changing content stands for: `linux-image-cloud-amd64` names one kernel. */
  async meaning(name: string): Promise<string> {
    const depends = await tool("apt-cache", ["depends", "--important", name]);
    const meant = /Depends: (linux-image-\d\S*)/.exec(depends)?.[1];
    if (meant === undefined)
      throw new Error(`apt knows no kernel behind ${name}: a Debian with its lists is needed`);
    return meant;
  }

  async unpack(packages: readonly Package[], into: string): Promise<void> {
    await mkdir(into, { recursive: true });
    for (const { file } of packages) {
      // Directories that are links in `into` stay links: packages still ship /bin and /lib.
      await tool("sh", [
        "-c",
        'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink --no-same-owner -p',
        "sh",
        file,
        into,
      ]);
    }
  }

  /** Forget the packages of earlier builds. */
  async prune(keep: readonly Package[]): Promise<void> {
    const kept = new Set(keep.map(({ file }) => file));
    for (const name of await readdir(this.#dir)) {
      const file = join(this.#dir, name);
      if (name.endsWith(".deb") && !kept.has(file)) await rm(file);
    }
  }

  async #describe(name: string): Promise<Package> {
    const file = join(this.#dir, name);
    if (!existsSync(file)) throw new Error(`apt did not bring ${name}`);
    const sha256 = createHash("sha256")
      .update(await readFile(file))
      .digest("hex");
    const [packageName = "", version = ""] = name.split("_");
    return { name: packageName, version: decodeURIComponent(version), file, sha256 };
  }
}
