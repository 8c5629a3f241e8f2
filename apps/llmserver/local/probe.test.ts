import { expect, it } from "vitest";
import { probeEngine } from "./probe.ts";

it("the library for local models loads, in a process without our environment", async () => {
  const { cores } = await probeEngine();
  expect(cores).toBeGreaterThan(0);
});
