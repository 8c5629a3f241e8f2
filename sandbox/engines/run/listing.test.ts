import { expect, it } from "vitest";
import { readProcess } from "../../process-tree.ts";
import { describeProcess, insidePid } from "./listing.ts";

/** Larger than any number a process can have. */
const NOBODY = 2 ** 22 + 1;

it("a process is described by its command line, or by its name when it has none any more", () => {
  const self = readProcess(process.pid);
  if (self === undefined) throw new Error("we are not there");
  const entry = describeProcess(self, 7, 3);
  expect(entry).toMatchObject({ pid: 7, ppid: 3, hostPid: process.pid });
  expect(entry.command.length).toBeGreaterThan(1);
  expect(Math.abs(entry.startedAt - (Date.now() - process.uptime() * 1000))).toBeLessThan(60_000);
  expect(describeProcess({ ...self, pid: NOBODY, command: "gone" }, 7, 3).command).toEqual(["gone"]);
});

it("the number inside is our own where there is no inside, and none of what has gone", () => {
  expect(insidePid(process.pid)).toBeTypeOf("number");
  expect(insidePid(NOBODY)).toBeUndefined();
});
