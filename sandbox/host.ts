import { accessSync, constants, existsSync, lstatSync, readFileSync, readlinkSync } from "node:fs";
import { release } from "node:os";

/** Fixed, not from PATH: what starts sandboxes must not be found in a directory somebody else fills. */
const PROGRAM_DIRECTORIES = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"];

export function findProgram(name: string): string | undefined {
  return PROGRAM_DIRECTORIES.map((directory) => `${directory}/${name}`).find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** How this machine lays out its system directories, merged into /usr or not. */
export interface SystemLayout {
  /** Symbolic links to repeat inside: [target, path]. */
  links: (readonly [string, string])[];
  /** Paths shown read-only inside. */
  binds: string[];
}

const TOP_LEVEL = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/** What programs need from /etc and what holds no secret; private keys lie in /etc/ssl/private. */
const SHARED_ETC = [
  "/etc/ld.so.cache",
  "/etc/alternatives",
  "/etc/ssl/certs",
  "/etc/ssl/openssl.cnf",
  "/etc/pki/tls/certs",
  "/etc/pki/ca-trust/extracted",
  "/etc/localtime",
];

export function systemLayout(): SystemLayout {
  const layout: SystemLayout = { links: [], binds: ["/usr"] };
  for (const path of TOP_LEVEL) {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat?.isSymbolicLink()) layout.links.push([readlinkSync(path), path]);
    else if (stat?.isDirectory()) layout.binds.push(path);
  }
  layout.binds.push(...SHARED_ETC.filter((path) => existsSync(path)));
  return layout;
}

/** Content of a small system file, trimmed; undefined where there is none. */
export function readSystemFile(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

/** From Linux 5.14 RLIMIT_NPROC counts per user namespace; before, it would count all of the user's processes. */
export function countsProcessesPerNamespace(version: string = release()): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number.parseFloat);
  return major > 5 || (major === 5 && minor >= 14);
}
