import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { lockForProcess, processStart } from "./process-lock.ts";

describe("process lock", () => {
  const base = mkdtempSync(join(tmpdir(), "cds-lock-"));
  const path = join(base, "lock");
  afterAll(() => rmSync(base, { recursive: true }));
  const conflict = (error: unknown) => (error instanceof AppError ? error.code : error);

  it("knows when a process started, and that it is gone", async () => {
    expect(await processStart(process.pid)).toBe(await processStart(process.pid));
    expect(await processStart(999_999_999)).toBeUndefined();
    const child = spawn("sleep", ["60"]);
    const started = await processStart(child.pid ?? 0);
    expect(started).toBeDefined();
    const closed = new Promise((done) => child.once("close", done));
    child.kill("SIGKILL");
    await closed;
    expect(await processStart(child.pid ?? 0)).toBeUndefined();
  });

  it("is held by one at a time and free again after release", async () => {
    const lock = await lockForProcess(path, "The thing");
    const second = lockForProcess(path, "The thing");
    await expect(second).rejects.toThrow(`The thing is in use by another process (pid ${process.pid}).`);
    await lock.release();
    await lock.release();
    {
      await using _again = await lockForProcess(path, "The thing");
      expect(await lockForProcess(path, "The thing").catch(conflict)).toBe("Conflict");
    }
    expect(readdirSync(base)).toEqual([]);
  });

  it("is taken over from a holder that is gone, or from garbage", async () => {
    const dead = Number(execFileSync("sh", ["-c", "echo $$"], { encoding: "utf8" }));
    const stale = [
      JSON.stringify({ pid: dead, start: "1", nonce: "x" }),
      // The pid lives, but as another process than the one that took the lock.
      JSON.stringify({ pid: process.pid, start: "1", nonce: "x" }),
      JSON.stringify({ pid: "no" }),
      "half a wri",
      "",
    ];
    for (const content of stale) {
      writeFileSync(path, content);
      const lock = await lockForProcess(path, "The thing");
      expect(JSON.parse(readFileSync(path, "utf8"))).toMatchObject({ pid: process.pid });
      await lock.release();
    }
  });

  it("goes to exactly one of many who find the same stale lock", async () => {
    for (let round = 0; round < 20; round += 1) {
      writeFileSync(path, "stale");
      const tries = await Promise.allSettled(
        Array.from({ length: 8 }, () => lockForProcess(path, "The thing")),
      );
      const locks = tries.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
      expect(locks).toHaveLength(1);
      await locks[0]?.release();
    }
    expect(readdirSync(base)).toEqual([]);
  });

  it("leaves a lock alone that is another's by now", async () => {
    const lock = await lockForProcess(path, "The thing");
    writeFileSync(path, "another's");
    await lock.release();
    expect(readFileSync(path, "utf8")).toBe("another's");
    rmSync(path);
  });

  it("says what is wrong where it cannot write", async () => {
    await expect(lockForProcess(join(base, "none/lock"), "The thing")).rejects.toThrow(/ENOENT/);
  });
});
