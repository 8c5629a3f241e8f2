import { mkdir, readdir, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { metricsRegistry } from "#platform/metrics.ts";
import { makeTemporary, silent } from "../testing/harness.ts";
import { type Janitor, type JanitorOptions, openJanitor } from "./janitor.ts";
import type { Candidate, CleanSource } from "./source.ts";

const MINUTE = 60_000;
const NEVER = 24 * 3_600_000;
/** Longer than any removal here takes on a busy machine, but for those that hang. */
const HANGS_MS = 2000;

let top: string;
let dir: string;
beforeAll(async () => {
  top = await makeTemporary();
});
afterAll(() => rm(top, { recursive: true }));
let count = 0;
beforeEach(async () => {
  count += 1;
  dir = join(top, String(count));
  await mkdir(dir);
});

/** A directory that was used last so many minutes ago. */
async function make(name: string, minutesAgo: number): Promise<void> {
  const path = join(dir, name);
  await mkdir(path);
  await writeFile(join(path, "file"), name);
  const then = new Date(Date.now() - minutesAgo * MINUTE);
  await utimes(path, then, then);
}

/** The directories in `dir`, idle since they were changed. */
function directories(more: Partial<CleanSource> = {}): CleanSource {
  return {
    name: "test",
    async list() {
      const names = (await readdir(dir)).sort();
      return Promise.all(
        names.map(async (name): Promise<Candidate> => {
          const path = join(dir, name);
          const remove = async () => {
            await rm(path, { recursive: true });
            return "removed" as const;
          };
          return { id: name, path, bytes: 10, idleSince: (await stat(path)).mtimeMs, remove };
        }),
      );
    },
    ...more,
  };
}

const one = (candidate: Pick<Candidate, "remove"> & Partial<Candidate>, name = "test"): CleanSource => ({
  name,
  list: async () => [{ id: "one", idleSince: null, ...candidate }],
});

/** No disk is full and no timer runs, unless told. */
async function open(sources: CleanSource[], more: Partial<JanitorOptions> = {}): Promise<Janitor> {
  const disk = async () => 0.1;
  const janitor = openJanitor({ sources: [], places: [dir], log: silent, everyMs: NEVER, disk, ...more });
  await janitor.run();
  for (const source of sources) janitor.add(source);
  return janitor;
}

async function counted(metric: string, labels: Record<string, string>): Promise<number> {
  const values = (await metricsRegistry.getSingleMetric(metric)?.get())?.values ?? [];
  const same = values.filter((value) =>
    Object.entries(labels).every(([name, label]) => value.labels[name] === label),
  );
  return same.reduce((sum, { value }) => sum + value, 0);
}

describe("age", () => {
  it("[MU-7] removes what has been idle for more than 30 minutes, counts it and tells of it", async () => {
    await make("old", 31);
    await make("older", 300);
    await make("young", 29);
    const before = await counted("sandbox_cleanups_total", { source: "test", reason: "age" });
    await using janitor = await open([directories()]);
    const report = await janitor.run();
    expect(await readdir(dir)).toEqual(["young"]);
    expect(report).toMatchObject({ occasion: "asked", removed: 2, failed: 0, busy: 0, freedBytes: 20 });
    expect(report).toMatchObject({ byReason: { age: 2, orphan: 0, disk: 0, shutdown: 0 }, diskBefore: 0.1 });
    expect(janitor.last).toBe(report);
    expect(await counted("sandbox_cleanups_total", { source: "test", reason: "age" })).toBe(before + 2);
  });

  it("removes at once what nobody owns any more, whatever its age", async () => {
    let there = true;
    const remove = async () => {
      there = false;
      return "removed" as const;
    };
    await using janitor = await open([one({ remove })]);
    expect(await janitor.run()).toMatchObject({ removed: 1, byReason: { orphan: 1 }, freedBytes: 0 });
    expect(there).toBe(false);
  });

  it("nothing goes early or stays for ever because somebody set the clock", async () => {
    const now = { wall: Date.now(), steady: 0 };
    const clocks = { wall: () => now.wall, steady: () => now.steady };
    const pass = (ms: number) => {
      now.wall += ms;
      now.steady += ms;
    };
    let idleSince = now.wall;
    let removals = 0;
    const remove = async () => {
      removals += 1;
      return "removed" as const;
    };
    const source: CleanSource = { name: "test", list: async () => [{ id: "it", idleSince, remove }] };
    await using janitor = await open([source], { clocks });
    for (const jump of [3650 * NEVER, -3650 * NEVER, 40 * MINUTE, -40 * MINUTE]) {
      idleSince = now.wall;
      await janitor.run();
      now.wall += jump;
      await janitor.run();
      pass(29 * MINUTE);
      await janitor.run();
      // Used once more, when the clock was already wrong.
      idleSince = now.wall;
      await janitor.run();
      pass(29 * MINUTE);
      await janitor.run();
      expect(removals).toBe(0);
      pass(2 * MINUTE);
      expect(await janitor.run()).toMatchObject({ byReason: { age: 1 } });
      removals = 0;
    }
  });

  it("what says it was used in the future is kept until it has been watched for long enough", async () => {
    await make("future", -1_000_000);
    const start = performance.now();
    let passed = 0;
    const clocks = { wall: () => Date.now() + passed, steady: () => start + passed };
    await using janitor = await open([directories()], { clocks });
    expect((await janitor.run()).removed).toBe(0);
    passed = 31 * MINUTE;
    expect((await janitor.run()).removed).toBe(1);
  });
});

describe("a full disk", () => {
  it("[MU-7] loses the longest idle first, until four fifths of the threshold are reached", async () => {
    for (const [index, minutes] of [5, 1, 7, 3, 2, 6, 4, 8, 9].entries())
      await make(`${minutes}-${index}`, minutes);
    const use = async () => (await readdir(dir)).length / 10;
    const never = async () => expect.fail("frees nothing here");
    const elsewhere = one({ id: "elsewhere", path: "/proc/self", idleSince: 0, remove: never });
    const nowhere = one({ id: "nowhere", idleSince: 0, remove: never });
    await using janitor = await open([elsewhere, nowhere, directories()], { disk: use, maxAgeMs: 1e15 });
    const report = await janitor.run();
    expect((await readdir(dir)).map((name) => name[0]).sort()).toEqual(["1", "2", "3", "4", "5", "6"]);
    expect(report).toMatchObject({ removed: 3, byReason: { disk: 3 }, diskBefore: 0.9, diskAfter: 0.6 });
    expect((await janitor.run()).removed).toBe(0);
  });

  it("is told of when nothing is left to remove, and one that cannot be read removes nothing", async () => {
    await make("young", 1);
    const warnings: string[] = [];
    const log = {
      ...silent,
      warn: (_: object, text: string) => warnings.push(text),
    } as unknown as typeof silent;
    const places = [dir, top, join(top, "missing")];
    {
      await using janitor = await open([directories()], { disk: async () => 0.99, log, places });
      expect(await janitor.run()).toMatchObject({ removed: 1, diskAfter: 0.99 });
      expect(warnings).toContain("the disk is too full, and nothing idle is left to remove");
    }
    for (const name of ["young", "younger"]) await make(name, 1);
    {
      let looks = 0;
      const disk = async () => {
        looks += 1;
        return looks % 5 < 4 ? 0.99 : Promise.reject(new Error("no"));
      };
      await using janitor = await open([directories()], { disk, log });
      // Two looks of the first round, one before this one, one at its disk, and one that fails after the first removal.
      expect(await janitor.run()).toMatchObject({ removed: 1 });
    }
    await using janitor = await open([directories()], { disk: () => Promise.reject(new Error("no")), log });
    expect(await janitor.run()).toMatchObject({ removed: 0, diskBefore: null, diskAfter: null });
    expect(warnings).toContain("cannot tell how full the disk is");
  });

  it("is looked at where it really is", async () => {
    await using janitor = openJanitor({ sources: [], places: [dir], log: silent });
    const { diskBefore } = await janitor.run();
    expect(diskBefore).toBeGreaterThan(0);
    expect(diskBefore).toBeLessThanOrEqual(1);
  });
});

describe("a removal", () => {
  it("[MU-7] that hangs or fails stops no other, and is not begun again while it hangs", async () => {
    const hang = Promise.withResolvers<"removed">();
    let begun = 0;
    const hanging = one({
      id: "hanging",
      remove: () => {
        begun += 1;
        return hang.promise;
      },
    });
    const failing = one({ id: "failing", remove: () => Promise.reject(new Error("not this one")) });
    await make("old", 31);
    const failures = await counted("sandbox_cleanup_failures_total", { source: "test" });
    await using janitor = await open([hanging, failing, directories()], { removalMs: HANGS_MS });
    expect(await janitor.run()).toMatchObject({ removed: 1, failed: 2, busy: 0 });
    expect(await counted("sandbox_cleanup_failures_total", { source: "test" })).toBe(failures + 2);
    expect(await janitor.run()).toMatchObject({ removed: 0, failed: 1, busy: 1 });
    expect(begun).toBe(1);
    hang.resolve("removed");
    await hang.promise;
    expect(await janitor.run()).toMatchObject({ removed: 1, failed: 1 });
    expect(begun).toBe(2);
  });

  it("of what is used again, or of what another was faster to remove, counts for nothing", async () => {
    const outcomes = ["busy", "gone"] as const;
    await using janitor = await open(
      outcomes.map((outcome) => one({ id: outcome, remove: async () => outcome })),
    );
    expect(await janitor.run()).toMatchObject({ removed: 0, failed: 0, busy: 1 });
  });

  it("goes on when a source cannot tell what it has, or does not answer", async () => {
    await make("old", 31);
    const broken: CleanSource = { name: "broken", list: () => Promise.reject(new Error("no idea")) };
    const silentOne: CleanSource = { name: "silent", list: () => new Promise(() => undefined) };
    await using janitor = await open([broken, silentOne, directories()], { removalMs: HANGS_MS });
    expect(await janitor.run()).toMatchObject({ removed: 1, failed: 2 });
  });
});

describe("rounds", () => {
  it("come by themselves, at the start and then again and again, and never two at once", async () => {
    let working = 0;
    let most = 0;
    const occasions = new Set<string>();
    const source: CleanSource = {
      name: "test",
      async list() {
        working += 1;
        most = Math.max(most, working);
        await new Promise((resolve) => setTimeout(resolve, 5));
        working -= 1;
        return [];
      },
    };
    const janitor = openJanitor({ sources: [source], places: [], log: silent, everyMs: 5 });
    await expect
      .poll(
        () => {
          occasions.add(janitor.last?.occasion ?? "none");
          return occasions.has("timer") && occasions.has("start");
        },
        { interval: 1 },
      )
      .toBe(true);
    await Promise.all([janitor.run(), janitor.run("timer"), janitor.run()]);
    expect(janitor.last?.diskBefore).toBeNull();
    await janitor.close();
    expect(most).toBe(1);
    expect(janitor.last?.occasion).toBe("shutdown");
  });

  it("[MU-7] end with one at shutdown, which takes what is worth nothing afterwards", async () => {
    await make("young", 0);
    const janitor = await open([directories()]);
    const remove = janitor.add({ ...directories({ temporary: true }), name: "removed again" });
    remove();
    remove();
    await janitor.close();
    expect(await readdir(dir)).toEqual(["young"]);
    const next = await open([directories({ temporary: true })]);
    await Promise.all([next.close(), next.close()]);
    expect(next.last).toMatchObject({ occasion: "shutdown", removed: 1, byReason: { shutdown: 1 } });
    expect(await readdir(dir)).toEqual([]);
    await expect(next.run()).rejects.toMatchObject({ code: "Unavailable" });
  });

  it.each([null, 0])(
    "are not waited for at shutdown beyond a bound; one at work stops (%s)",
    async (idleSince) => {
      const hang = Promise.withResolvers<"removed">();
      const begun = Promise.withResolvers<void>();
      let later = 0;
      const janitor = await open(
        [
          one({
            id: "hanging",
            idleSince,
            remove: () => {
              begun.resolve();
              return hang.promise;
            },
          }),
          one({
            id: "later",
            idleSince,
            remove: async () => {
              later += 1;
              return "removed";
            },
          }),
        ],
        { closeMs: 40 },
      );
      const atWork = janitor.run();
      await begun.promise;
      await janitor.close();
      expect(later).toBe(0);
      hang.resolve("removed");
      expect(await atWork).toMatchObject({ removed: 1 });
      expect(later).toBe(0);
    },
  );
});
