import { appendFile, readdir, readFile, rmdir, stat, utimes } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ignoring } from "../engines/fs/descriptors.ts";
import { instanceState } from "../instance.ts";
import { readProcess } from "../process-tree.ts";
import { STATE_DIR } from "../runtime.ts";
import { removeIn, sharedName } from "./orphan-files.ts";
import { mountsBelow } from "./orphan-mounts.ts";
import { type LauncherRecord, orphanProcesses } from "./orphan-processes.ts";
import type { CleanSource, RemoveOutcome } from "./source.ts";

/** One of another process namespace (a container sharing the directory) can only be judged by what it does. */
const FOREIGN_AGE_MS = 24 * 3_600_000;
/** For so long, by our own steady clock, it must not have moved: a living server touches its directory every round. */
const FOREIGN_STILL_MS = 3_600_000;
const LAUNCHERS = "launchers";

/** The directory of one server process. */
interface Home {
  base: string;
  name: string;
  path: string;
}

/** For whoever has to end it after us: a launcher of ours runs, and leads a session of its own. */
export async function noteLauncher(home: string, pid: number): Promise<void> {
  const started = readProcess(pid)?.started;
  if (started !== undefined) await appendFile(join(home, LAUNCHERS), `${pid} ${started}\n`, { mode: 0o600 });
}

/** Directories that hold servers': ours, and outside of data directories also those of data directories not used any more. */
async function basesAround(base: string): Promise<string[]> {
  if (dirname(base) !== STATE_DIR) return [base];
  return (await readdir(STATE_DIR).catch(() => [])).map((name) => join(STATE_DIR, name));
}

async function homesIn(base: string): Promise<Home[]> {
  const names = await readdir(base).catch(ignoring("ENOENT", "ENOTDIR"));
  return (names ?? []).map((name) => ({ base, name, path: join(base, name) }));
}

/** What servers left below `base`, or one of its kind; `own` is this server's. */
export class Homes {
  readonly #base: string;
  readonly #own: string;
  readonly #steady: () => number;
  /** Foreign ones: when they were last changed, and since when we know. */
  readonly #still = new Map<string, { mtimeMs: number; since: number }>();

  constructor(base: string, own: string, steady: () => number = () => performance.now()) {
    this.#base = base;
    this.#own = own;
    this.#steady = steady;
  }

  async dead(): Promise<Home[]> {
    const bases = await basesAround(this.#base);
    const homes = (await Promise.all(bases.map(homesIn))).flat();
    return homes.filter(({ name }) => instanceState(name) === "dead");
  }

  readonly deadPaths = async () => (await this.dead()).map(({ path }) => path);

  /** The launchers that dead servers had. */
  readonly launchers = async (): Promise<LauncherRecord[]> => {
    const records = (await this.dead()).map(async ({ name, path }) => {
      const text = (await readFile(join(path, LAUNCHERS), "utf8").catch(ignoring("ENOENT", "ENOTDIR"))) ?? "";
      return text.split("\n").flatMap((line) => {
        const [pid, started] = line.split(" ");
        return started === undefined ? [] : [{ instance: name, pid: Number(pid), started }];
      });
    });
    return (await Promise.all(records)).flat();
  };

  /** Tell servers of other process namespaces that we live. */
  async touch(): Promise<void> {
    const now = new Date();
    await utimes(this.#own, now, now).catch(ignoring("ENOENT"));
  }

  async abandoned(): Promise<Home[]> {
    const foreign: Home[] = [];
    for (const home of await homesIn(this.#base)) {
      if (instanceState(home.name) === "foreign" && (await this.#isAbandoned(home.path))) foreign.push(home);
    }
    return foreign;
  }

  async #isAbandoned(path: string): Promise<boolean> {
    const facts = await stat(path).catch(ignoring("ENOENT"));
    if (facts === undefined) return false;
    const { mtimeMs } = facts;
    const known = this.#still.get(path);
    const since = known?.mtimeMs === mtimeMs ? known.since : this.#steady();
    this.#still.set(path, { mtimeMs, since });
    return Date.now() - mtimeMs > FOREIGN_AGE_MS && this.#steady() - since > FOREIGN_STILL_MS;
  }

  async remove({ base, name, path }: Home): Promise<RemoveOutcome> {
    // Its processes may still write there, and what they are known by stands there.
    if ((await orphanProcesses(await this.launchers())).has(name)) return "busy";
    if ((await mountsBelow([path])).length > 0) return "busy";
    const sockets = await readFile(join(path, "sockets"), "utf8").catch(ignoring("ENOENT", "ENOTDIR"));
    if (sockets !== undefined && basename(sockets).startsWith(`${sharedName(name)}-`)) {
      await removeIn(dirname(sockets), basename(sockets));
    }
    const found = await removeIn(base, name);
    // Only where nobody else works.
    if (base !== this.#base) await rmdir(base).catch(() => undefined);
    return found ? "removed" : "gone";
  }
}

/** Directories of servers that are no more: slots, sockets, copies of programs. */
export function directorySource(homes: Homes): CleanSource {
  return {
    name: "directories",
    async list() {
      await homes.touch();
      const all = [...(await homes.dead()), ...(await homes.abandoned())];
      return all.map((home) => ({
        id: home.path,
        path: home.path,
        idleSince: null,
        remove: () => homes.remove(home),
      }));
    },
  };
}
