import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { newInstanceName } from "../../instance.ts";
import { makeTemporary, silent } from "../../testing/harness.ts";
import { RAM_PREFIX, reconcileMicro } from "./reconcile.ts";
import { Snapshots } from "./snapshots.ts";

const MIB = 1024 * 1024;
const about = {
  driver: "qemu" as const,
  fingerprint: "one",
  machine: { image: "node" as const, memoryBytes: 256 * MIB, cpus: 1, diskBytes: MIB },
};

let dir: string;
beforeEach(async () => {
  dir = await makeTemporary();
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const write = (bytes: number) => async (home: string) => {
  await writeFile(join(home, "state"), "x");
  return bytes;
};

it("[SB-micro] keeps snapshots over a restart, but nothing half made", async () => {
  const snapshots = await Snapshots.open(dir, { maxCount: 3, maxBytes: 1e9 }, silent);
  const id = await snapshots.add(about, write(10));
  const failed = snapshots.add(about, () => Promise.reject(new Error("broken")));
  await expect(failed).rejects.toThrow("broken");
  expect(await readdir(join(dir, "snapshots"))).toEqual([id]);
  await mkdir(join(dir, "snapshots", "snp_half"));
  await mkdir(join(dir, "snapshots", "snp_x.tmp"));
  const again = await Snapshots.open(dir, { maxCount: 3, maxBytes: 1e9 }, silent);
  expect(again.list()).toEqual([{ id, ...about, bytes: 10, createdAt: expect.any(Number) }]);
  expect(await readdir(join(dir, "snapshots"))).toEqual([id]);
  await again.delete(id);
  expect(() => again.get(id)).toThrow(expect.objectContaining({ code: "NotFound" }));
  await expect(again.delete("../..")).rejects.toMatchObject({ code: "NotFound" });
  expect(await readdir(join(dir, "snapshots"))).toEqual([]);
});

it("[SB-micro] bounds their number and their bytes, those being taken included", async () => {
  const snapshots = await Snapshots.open(dir, { maxCount: 2, maxBytes: 100 }, silent);
  const rooms: number[] = [];
  const release = Promise.withResolvers<void>();
  const slow = snapshots.add(about, async (home, room) => {
    rooms.push(room);
    await release.promise;
    return write(60)(home);
  });
  // All the room is promised to the first.
  await expect(snapshots.add(about, write(1))).rejects.toMatchObject({ code: "QuotaExceeded" });
  release.resolve();
  await slow;
  await snapshots.add(about, (home, room) => {
    rooms.push(room);
    return write(30)(home);
  });
  expect(rooms).toEqual([100, 40]);
  await expect(snapshots.add(about, write(1))).rejects.toMatchObject({ code: "QuotaExceeded" });
});

it("[SB-micro] removes the memory files of dead servers, and no others", async () => {
  const living = `${RAM_PREFIX}${newInstanceName()}`;
  const [namespace] = newInstanceName().split("-");
  const names = {
    dead: `${RAM_PREFIX}${namespace}-4194300-1-1`,
    foreign: `${RAM_PREFIX}1-4194300-1-1`,
    other: `${RAM_PREFIX}anything`,
    unrelated: "snapshots",
  };
  for (const name of [living, ...Object.values(names)]) await mkdir(join(dir, name));
  expect(await reconcileMicro(dir, silent)).toBeGreaterThanOrEqual(1);
  expect((await readdir(dir)).sort()).toEqual([living, names.foreign, names.other, names.unrelated].sort());
});
