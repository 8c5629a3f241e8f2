import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createLogger } from "#platform/log.ts";
import { AppError } from "#schemas";
import { backoffMs } from "./attempts.ts";
import { downloadFailed, sortFailure, storageFailure, TransientFailure } from "./failures.ts";
import { type DownloadProgress, Progress } from "./progress.ts";

const log = createLogger({ level: "silent", pretty: false });

describe("progress", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] }));
  afterEach(() => void vi.useRealTimers());

  it("is told at most every 250 ms, the last of what was not told then, and the end at once", () => {
    const told: DownloadProgress[] = [];
    using progress = new Progress((item) => void told.push(item), log);
    progress.update({ state: "resolving" });
    expect(told).toHaveLength(1);
    for (let step = 1; step <= 24; step += 1) {
      vi.advanceTimersByTime(10);
      progress.update({ state: "downloading", total: 10_000, bytes: step * 100, received: 100 });
    }
    expect(told).toHaveLength(1);
    vi.advanceTimersByTime(10);
    expect(told[1]).toMatchObject({ state: "downloading", bytes: 2400, total: 10_000 });
    expect(told[1]?.bytes_per_second).toBe(9600);
    vi.advanceTimersByTime(10_000);
    expect(told).toHaveLength(2);
    progress.update({ state: "verifying" });
    progress.update({ state: "done", bytes: 10_000 });
    expect(told.map(({ state }) => state)).toEqual(["resolving", "downloading", "verifying", "done"]);
    vi.advanceTimersByTime(10_000);
    expect(told).toHaveLength(4);
  });

  it("has the speed of the last seconds, without what was there before", () => {
    const told: DownloadProgress[] = [];
    using progress = new Progress((item) => void told.push(item), log);
    progress.update({ state: "downloading", bytes: 1_000_000, total: 9_000_000 });
    const go = (seconds: number, perSecond: number) => {
      for (let step = 0; step < seconds * 2; step += 1) {
        vi.advanceTimersByTime(500);
        progress.update({ received: perSecond / 2 });
      }
    };
    go(10, 1000);
    expect(told.at(-1)?.bytes_per_second).toBe(1000);
    go(10, 50_000);
    expect(told.at(-1)?.bytes_per_second).toBe(50_000);
  });

  it("is told no more once it is over, and a listener that fails disturbs nobody", () => {
    const listener = vi.fn(() => {
      throw new Error("no");
    });
    const progress = new Progress(listener, log);
    progress.update({ bytes: 1 });
    progress.update({ bytes: 2 });
    progress[Symbol.dispose]();
    vi.advanceTimersByTime(1000);
    expect(listener).toHaveBeenCalledTimes(1);
  });
});

describe("pauses between attempts", () => {
  it("double up to a limit, never below half, and as long as asked for up to a minute", () => {
    for (const [failures, ceiling] of [
      [1, 500],
      [2, 1000],
      [5, 8000],
      [6, 15_000],
      [50, 15_000],
    ] as const) {
      for (let time = 0; time < 50; time += 1) {
        expect(backoffMs(failures)).toBeGreaterThanOrEqual(ceiling / 2);
        expect(backoffMs(failures)).toBeLessThanOrEqual(ceiling);
      }
    }
    expect(backoffMs(1, 20)).toBe(20_000);
    expect(backoffMs(1, 86_400)).toBe(60_000);
    expect(backoffMs(1, 0, 4)).toBeLessThanOrEqual(4);
  });
});

describe("failures, sorted", () => {
  const withCode = (code: string) => Object.assign(new Error("at 10.1.2.3:443, token hf_x"), { code });

  it.each([
    "ECONNREFUSED",
    "ECONNRESET",
    "ENOTFOUND",
    "UND_ERR_SOCKET",
    "UND_ERR_CONNECT_TIMEOUT",
    "HPE_INVALID_CONSTANT",
  ])("%s is tried again", (code) => {
    const failure = sortFailure(withCode(code));
    expect(failure).toBeInstanceOf(TransientFailure);
    expect(failure.message).toBe(`The model hub cannot be reached (${code}).`);
  });

  it.each(["CERT_HAS_EXPIRED", "DEPTH_ZERO_SELF_SIGNED_CERT", "UND_ERR_INVALID_ARG", "CDS_REFUSED_ADDRESS"])(
    "%s is not",
    (code) => {
      const failure = sortFailure(withCode(code));
      expect(failure).toMatchObject({ name: "AppError", code: "DownloadFailed" });
      expect(failure instanceof AppError ? JSON.stringify(failure.toHttp()) : "").not.toMatch(/10\.1|hf_x/);
    },
  );

  it("what is a mistake of ours stays one, what is known already stays as it is", () => {
    const mistake = new TypeError("x is not a function");
    expect(() => sortFailure(mistake)).toThrow(mistake);
    expect(() => storageFailure(mistake)).toThrow(mistake);
    const known = downloadFailed("known");
    expect(sortFailure(known)).toBe(known);
    expect(() => storageFailure(known)).toThrow(known);
  });

  it("a full disk is a limit reached, another refusal of the disk is named", () => {
    for (const code of ["ENOSPC", "EDQUOT"]) {
      expect(storageFailure(withCode(code))).toMatchObject({
        code: "QuotaExceeded",
        message: "The disk is full.",
      });
    }
    expect(storageFailure(withCode("EROFS"))).toMatchObject({
      code: "DownloadFailed",
      message: "The models directory cannot be used (EROFS).",
    });
  });
});
