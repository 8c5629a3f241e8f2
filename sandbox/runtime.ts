import { createHash, randomBytes } from "node:crypto";
import { constants } from "node:fs";
import {
  chmod,
  copyFile,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readlink,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { enterable, type Identity } from "#platform/host/enterable.ts";
import { AppError } from "#schemas";
import { ignoring } from "./engines/fs/descriptors.ts";
import { readSystemFile } from "./host.ts";
import { removeIn, sharedName } from "./janitor/orphan-files.ts";

/**
 * First of the users that slots run as when the server is root: from the range that systemd's allocation
 * leaves to nobody (1879048192 to 2147352575), so that no account and no container has it.
 */
const FIRST_UID = 1_900_000_000;
/** No server has more slots. */
const UIDS = 65_536;
/** Where servers' directories stand that would be out of slots' reach in the data directory. */
export const STATE_DIR = "/var/lib/cyberdevstudio";
/** A socket's path may have 107 bytes; room for the names below is kept. */
const MAX_SOCKET_DIR_BYTES = 80;
const REMOVE_MS = 120_000;
const HOME_ATTEMPTS = 20;

export interface RuntimeOptions {
  dataDir: string;
  /** This process's name, see `instance.ts`. */
  instance: string;
  slots: number;
}

/** What sandboxes of one server process need on disk. */
export interface Runtime {
  /** Holds the directories of all server processes with this data directory. */
  readonly base: string;
  /** This process's own directory; every slot can pass through it, nobody can list it. */
  readonly dir: string;
  /** For sockets: short, and passable in the same way. */
  readonly socketDir: string;
  /** For the server alone. */
  readonly privateSocketDir: string;
  /** passwd, group, hosts and nsswitch.conf for the inside. */
  readonly etcDir: string;
  /** The user a slot runs as; null when that is the server's own. */
  identityOf(slot: number): Identity | null;
  /** A path to the same files that slots can read: `source`, or a link or copy of it. */
  reachable(source: string): Promise<string>;
  close(): Promise<void>;
}

/** Whether a user is one that only slots have. */
export const isSlotUser = (uid: number) => uid >= FIRST_UID && uid < FIRST_UID + UIDS;

/** Whether ids from `first` on, as many, exist in our user namespace. */
function mapped(map: string, first: number, count: number): boolean {
  return map.split("\n").some((line) => {
    const [inside = 0, , length = 0] = line.trim().split(/\s+/).map(Number);
    return first >= inside && first + count <= inside + length;
  });
}

/** The first of as many users and groups that exist here and belong to nobody. Throws AppError EngineUnavailable. */
export function firstUid(
  slots: number,
  readFile: (path: string) => string | undefined = readSystemFile,
): number {
  const maps = ["uid_map", "gid_map"].map((name) => readFile(`/proc/self/${name}`) ?? "");
  const candidates = [FIRST_UID, 60_000 - slots];
  const first = candidates.find((candidate) => maps.every((map) => mapped(map, candidate, slots)));
  if (first !== undefined) return first;
  throw new AppError(
    "EngineUnavailable",
    "Running as root, but without other user ids to run sandboxes as.",
    {
      hint: "Give the container more than one user id, or run the server as an ordinary user.",
    },
  );
}

/** The directory above all instances: in the data directory, or where slots can reach it when that is closed to them. */
function baseDir(dataDir: string, someone: Identity | null): string {
  const wanted = join(dataDir, "sandbox");
  if (someone === null || enterable(dataDir, someone)) return wanted;
  return join(STATE_DIR, createHash("sha256").update(dataDir).digest("hex").slice(0, 16));
}

async function makeBase(base: string, mode: number): Promise<void> {
  await mkdir(base, { recursive: true, mode });
  if (base.startsWith(`${STATE_DIR}/`)) await chmod(STATE_DIR, mode);
  const found = await lstat(base);
  if (!found.isDirectory() || found.uid !== process.getuid?.()) {
    throw new AppError("EngineUnavailable", `${base} is not a directory of our own.`, {
      hint: "Remove it, or give the server another data directory (CDS_DATA_DIR).",
    });
  }
  await chmod(base, mode);
}

/** Another server that ends may remove the directory above, empty as it is, at any moment before ours is in it. */
async function makeHome(base: string, dir: string, mode: number): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await makeBase(base, mode);
      await mkdir(dir);
      await chmod(dir, mode);
      return;
    } catch (error) {
      ignoring("ENOENT")(error);
      if (attempt === HOME_ATTEMPTS) throw error;
    }
  }
}

const ETC = {
  passwd:
    "root:x:0:0:root:/:/usr/sbin/nologin\nuser:x:1000:1000:user:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
  group: "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n",
  hosts: "127.0.0.1 localhost sandbox\n::1 localhost\n",
  "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
};

async function makeEtc(dir: string): Promise<string> {
  const etcDir = join(dir, "etc");
  await mkdir(etcDir);
  await chmod(etcDir, 0o755);
  for (const [name, content] of Object.entries(ETC)) {
    await writeFile(join(etcDir, name), content);
    await chmod(join(etcDir, name), 0o644);
  }
  return etcDir;
}

/** Everything readable by everyone, whatever it was: for program files that a slot's user has to run. */
async function copyReadable(source: string, target: string): Promise<void> {
  const found = await lstat(source);
  if (found.isSymbolicLink()) {
    await symlink(await readlink(source), target);
  } else if (found.isDirectory()) {
    await mkdir(target);
    await chmod(target, 0o755);
    for (const name of await readdir(source)) await copyReadable(join(source, name), join(target, name));
  } else if (found.isFile()) {
    // A link costs nothing, but shares its permissions with the original.
    const linked =
      (found.mode & 0o444) === 0o444 &&
      (await link(source, target).then(
        () => true,
        () => false,
      ));
    if (linked) return;
    await copyFile(source, target, constants.COPYFILE_FICLONE);
    await chmod(target, (found.mode & 0o111) === 0 ? 0o644 : 0o755);
  }
}

async function makeReachable(programs: string, source: string): Promise<string> {
  const home = join(programs, randomBytes(8).toString("hex"));
  const draft = `${home}.tmp`;
  for (const directory of [programs, draft]) {
    await mkdir(directory, { recursive: true });
    await chmod(directory, 0o711);
  }
  await copyReadable(source, join(draft, basename(source)));
  await rename(draft, home);
  return join(home, basename(source));
}

async function canRead(source: string, who: Identity): Promise<boolean> {
  if (!enterable(dirname(source), who)) return false;
  const found = await stat(source);
  const needed = found.isDirectory() ? 0o005 : 0o004;
  return found.uid === who.uid || (found.mode & needed) === needed;
}

async function makeSocketDirs(dir: string, instance: string, mode: number) {
  const near = join(dir, "s");
  let socketDir = near;
  if (Buffer.byteLength(near) > MAX_SOCKET_DIR_BYTES) {
    socketDir = await mkdtemp(join(tmpdir(), `${sharedName(instance)}-`));
    // For whoever has to clean up after us with another TMPDIR.
    await writeFile(join(dir, "sockets"), socketDir, { mode: 0o600 });
  } else await mkdir(near);
  await chmod(socketDir, mode);
  const privateSocketDir = join(socketDir, "p");
  await mkdir(privateSocketDir, { mode: 0o700 });
  return { socketDir, privateSocketDir };
}

/** Make this process's directory. */
export async function openRuntime({ dataDir, instance, slots }: RuntimeOptions): Promise<Runtime> {
  const first = process.getuid?.() === 0 ? firstUid(slots) : null;
  const identityOf = (slot: number) => (first === null ? null : { uid: first + slot, gid: first + slot });
  const someone = identityOf(0);
  const mode = someone === null ? 0o700 : 0o711;
  const base = baseDir(dataDir, someone);
  const dir = join(base, instance);
  await makeHome(base, dir, mode);
  const { socketDir, privateSocketDir } = await makeSocketDirs(dir, instance, mode);
  const copies = new Map<string, Promise<string>>();
  return {
    base,
    dir,
    socketDir,
    privateSocketDir,
    etcDir: await makeEtc(dir),
    identityOf,
    async reachable(source) {
      if (someone === null || source.startsWith(`${dir}/`)) return source;
      const real = await realpath(source);
      if (await canRead(real, someone)) return real;
      let copy = copies.get(real);
      if (copy === undefined) {
        copy = makeReachable(join(dir, "programs"), real);
        copies.set(real, copy);
        copy.catch(() => copies.delete(real));
      }
      return copy;
    },
    async close() {
      await rm(socketDir, { recursive: true, force: true });
      await removeIn(base, instance, REMOVE_MS);
      // Only when no other server works beside us.
      await rmdir(base).catch(() => undefined);
    },
  };
}
