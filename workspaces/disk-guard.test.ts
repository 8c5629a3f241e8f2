import { mkdtemp, rm, writeFile } from "node:fs/promises";
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
