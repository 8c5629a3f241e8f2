import { accessSync, constants } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { allProcesses } from "../../../process-tree.ts";
import { makeTemporary, openForTest, silent } from "../../../testing/harness.ts";
import { HostClient } from "./client.ts";
import { MicrosandboxDriver } from "./driver.ts";

const hasKvm = (() => {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
})();

it.skipIf(hasKvm)("[SB-micro] says at once why it cannot work without KVM, and takes no slot", async () => {
  await using opened = await openForTest();
  const driver = new MicrosandboxDriver({ host: opened.sandboxes, log: silent });
  const availability = await driver.probe();
  expect(availability).toMatchObject({ available: false, reasons: [expect.stringContaining("/dev/kvm")] });
  expect(availability.hint).toMatch(/KVM/);
  expect(opened.sandboxes.slots.inUse).toBe(0);
  await expect(driver.restore()).rejects.toMatchObject({ code: "EngineUnavailable" });
  await driver.close();
});

it.skipIf(hasKvm)("[SB-micro] a machine that does not boot is an error, and leaves no process", async () => {
  const home = await makeTemporary();
  const client = new HostClient({ home, identity: null });
  const order = { op: "start" as const, name: "vm_test", rootfs: join(home, "none.raw") };
  const failure = client.ask({ ...order, memoryMib: 128, diskMib: 1, cpus: 1 }, 60_000);
  await expect(failure).rejects.toMatchObject({
    code: "Unavailable",
    message: expect.stringMatching(/microsandbox/),
  });
  await expect(client.ask({ op: "ping", name: "vm_test" }, 60_000)).rejects.toMatchObject({
    code: "Unavailable",
  });
  client.kill();
  await client.exited;
  await expect(client.ask({ op: "ping", name: "vm_test" }, 60_000)).rejects.toMatchObject({
    code: "Unavailable",
  });
  const left = [...allProcesses().values()].filter(
    ({ session, state }) => session === client.pid && state !== "Z",
  );
  expect(left).toEqual([]);
  await rm(home, { recursive: true });
});
