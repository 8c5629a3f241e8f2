import { tmpdir } from "node:os";
import { describe, expect, it } from "vitest";
import { Admission } from "./admission.ts";
import { diskUse, readMemory } from "./host-load.ts";

const GB = 1024 ** 3;
const limits = { memoryThreshold: 0.85, diskThreshold: 1, processBytes: 0.45 * GB, dataDir: tmpdir() };
const idle = { starting: 0, reclaimableBytes: 0 };
const at = (availableGb: number) => () => ({ totalBytes: 10 * GB, availableBytes: availableGb * GB });

describe("admission", () => {
  it("[MU-5] counts what starting processes will still take: memory_threshold_exceeded", async () => {
    expect(await new Admission(limits, at(3)).blockedReason(idle)).toBeNull();
    expect(await new Admission(limits, at(3)).blockedReason({ ...idle, starting: 3 })).toBe(
      "memory_threshold_exceeded",
    );
    expect(await new Admission(limits, at(1.5)).blockedReason(idle)).toBe("memory_threshold_exceeded");
  });

  it("[MU-5] lets idle processes make room before it refuses", async () => {
    const reclaimable = { starting: 0, reclaimableBytes: GB };
    expect(await new Admission(limits, at(1.5)).blockedReason(reclaimable)).toBeNull();
    expect(await new Admission(limits, at(0.5)).blockedReason(reclaimable)).toBe("memory_threshold_exceeded");
  });

  it("[MU-5] lets no more begin at once than there is room for", () => {
    expect(new Admission(limits, at(3)).fitting(2)).toBe(2);
    const scarce = new Admission(limits, at(3));
    const most = scarce.fitting(16);
    expect(most).toBeGreaterThanOrEqual(1);
    expect(scarce.overBytes(most - 1)).toBe(0);
    expect(scarce.overBytes(15)).toBeGreaterThan(0);
    expect(new Admission(limits, at(1.5)).fitting(16)).toBe(1);
  });

  it("[MU-5] refuses on a full disk: disk_threshold_exceeded", async () => {
    const full = new Admission({ ...limits, diskThreshold: -1 }, at(9));
    expect(await full.blockedReason(idle)).toBe("disk_threshold_exceeded");
  });

  it("reads this machine's memory and disk", async () => {
    const { totalBytes, availableBytes } = readMemory();
    expect(totalBytes).toBeGreaterThan(0);
    expect(availableBytes).toBeGreaterThan(0);
    expect(availableBytes).toBeLessThanOrEqual(totalBytes);
    const disk = await diskUse(tmpdir());
    expect(disk).toBeGreaterThanOrEqual(0);
    expect(disk).toBeLessThanOrEqual(1);
  });
});
