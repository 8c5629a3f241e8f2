import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
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
    await sleep(150);
  }
  expect(full).toBe(ends);
  await rm(directory, { recursive: true });
});
