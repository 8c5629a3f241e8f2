import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { Config } from "#platform/config/config.ts";
import { enterable, firstClosed, type Identity } from "#platform/host/enterable.ts";
import { AppError } from "#schemas";

/** A uid of nobody's, so that no other service shares the files; then `nobody`, then low ones of small maps. */
const CANDIDATES = [61_711, 65_534, 1000, 1];
const SYSTEM_DATA_DIR = "/var/lib/cyberdevstudio";

/**
 * Whom PostgreSQL runs as: undefined = as ourselves; when we are root (whom it refuses) the owner of the
 * existing data, else an unprivileged id that exists in this user namespace.
 */
export function serverIdentity(pgdata: string): Identity | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const owner = statSync(pgdata, { throwIfNoEntry: false });
  if (owner !== undefined && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid };
  const uid = CANDIDATES.find((id) => isMapped("/proc/self/uid_map", id));
  const gid = CANDIDATES.find((id) => isMapped("/proc/self/gid_map", id));
  if (uid === undefined || gid === undefined) {
    throw new AppError("Unavailable", "There is no unprivileged user id the database could run as.", {
      hint: "Start the studio as an ordinary user, or set DATABASE_URL to a PostgreSQL server.",
    });
  }
  return { uid, gid };
}

/** initdb wants a user with a name: any unprivileged one of /etc/passwd, preferably nobody. */
export function namedIdentity(): Identity {
  const users = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .map((line) => line.split(":"))
    .map(([name, , uid, gid]) => ({ name, uid: Number(uid), gid: Number(gid) }))
    .filter(({ uid, gid }) => uid > 0 && gid > 0 && isMapped("/proc/self/uid_map", uid));
  const found = users.find(({ name }) => name === "nobody") ?? users[0];
  if (found === undefined) {
    throw new AppError("Unavailable", "There is no unprivileged user the database could be made by.", {
      hint: "Add one to /etc/passwd (nobody), or set DATABASE_URL to a PostgreSQL server.",
    });
  }
  return { uid: found.uid, gid: found.gid };
}

/** Whether an id exists in our user namespace (rootless containers map only some). */
function isMapped(map: string, id: number): boolean {
  let lines: string[];
  try {
    lines = readFileSync(map, "utf8").trim().split("\n");
  } catch {
    return true;
  }
  return lines.some((line) => {
    const [first = 0, , length = 0] = line.trim().split(/\s+/).map(Number);
    return id >= first && id < first + length;
  });
}

/**
 * Where the data goes. As root, agents and the database run as other users, who must be able to enter: a
 * default below a closed home (/root) moves to /var/lib/cyberdevstudio; one that was named is never moved.
 */
export function chooseDataDir(config: Pick<Config, "dataDir" | "dataDirGiven">): {
  dataDir: string;
  moved: boolean;
} {
  const dataDir = resolve(config.dataDir);
  if (process.getuid?.() !== 0 || config.dataDirGiven) return { dataDir, moved: false };
  const identity = serverIdentity(resolve(dataDir, "postgres"));
  if (identity === undefined || enterable(dirname(dataDir), identity)) return { dataDir, moved: false };
  return { dataDir: SYSTEM_DATA_DIR, moved: true };
}

/** Throws Unavailable, naming the closed directory, when that user cannot get to `directory`. */
export function assertEnterable(directory: string, identity: Identity | undefined): void {
  if (identity === undefined) return;
  const closed = firstClosed(directory, identity);
  if (closed === undefined) return;
  throw new AppError(
    "Unavailable",
    `The database runs as user id ${identity.uid}, which may not enter ${closed}.`,
    {
      hint: `Set CDS_DATA_DIR to a directory others may pass through (for example ${SYSTEM_DATA_DIR}), or run chmod o+x ${closed}.`,
    },
  );
}
