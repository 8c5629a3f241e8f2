import { link, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { DiskGuard } from "./disk-guard.ts";

it.each([
  ["ends a run that has written more than its share of a nearly full disk", -1, 1000, true],
  ["leaves one alone that has written less", -1, 10_000, false],
  ["leaves everybody alone while there is room", 1, 1000, false],
])("disk guard %s", async (_, threshold, allowedBytes, ends) => {
  const directory = await mkdtemp(join(tmpdir(), "cds-disk-"));
  await writeFile(join(directory, "large"), Buffer.alloc(5000));
  let full = false;
  const onFull = () => {
    full = true;
  };
  {
    using _guard = new DiskGuard({ directory, threshold, allowedBytes, onFull }, 20);
    // One that ends its run every time tells how often the first has looked by now.
    let looks = 0;
    const count = { directory, threshold: -1, allowedBytes: 0, onFull: () => void looks++ };
    using _counter = new DiskGuard(count, 20);
    await expect.poll(() => looks, { timeout: 30_000 }).toBeGreaterThan(3);
  }
  expect(full).toBe(ends);
  await rm(directory, { recursive: true });
});

/** Whether the guard ends a run, once another that ends its own every time has looked a few times. */
async function ends(directory: string, allowedBytes: number): Promise<boolean> {
  let full = false;
  const onFull = () => {
    full = true;
  };
  let looks = 0;
  {
    using _guard = new DiskGuard({ directory, threshold: 0, allowedBytes, onFull }, 20);
    using _counter = new DiskGuard(
      { directory, threshold: 0, allowedBytes: -1, onFull: () => void looks++ },
      20,
    );
    await expect.poll(() => looks, { timeout: 30_000 }).toBeGreaterThan(6);
  }
  return full;
}

it("counts what hides: names that are no text, and files with several names once", async () => {
  const directory = await mkdtemp(join(tmpdir(), "cds-disk-"));
  await writeFile(Buffer.concat([Buffer.from(`${directory}/`), Buffer.from([0xff])]), Buffer.alloc(5000));
  await writeFile(join(directory, "one"), Buffer.alloc(5000));
  await link(join(directory, "one"), join(directory, "two"));
  expect(await ends(directory, 9999)).toBe(true);
  expect(await ends(directory, 10_001)).toBe(false);
  await rm(directory, { recursive: true });
});

it("takes no offence at a thousand links", async () => {
  const directory = await mkdtemp(join(tmpdir(), "cds-disk-"));
  for (let index = 0; index < 1100; index += 1) await symlink("nowhere", join(directory, String(index)));
  expect(await ends(directory, 1000)).toBe(false);
  await rm(directory, { recursive: true });
});
