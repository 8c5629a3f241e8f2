import { describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { FailureBook } from "./failure-book.ts";

describe("failures of one model", () => {
  const book = () => {
    const clock = { now: 1000 };
    return { clock, failures: new FailureBook(() => clock.now) };
  };

  it("three crashes within a minute make it rest for half of one", () => {
    const { clock, failures } = book();
    failures.crashed();
    clock.now += 50_000;
    failures.crashed();
    // The first is older than a minute by now.
    clock.now += 11_000;
    failures.crashed();
    failures.check();
    failures.failed(new AppError("EngineUnavailable", "It ended while it was loading."));
    expect(() => failures.check()).toThrow("ended 3 times within a minute");
    clock.now += 29_500;
    expect(() => failures.check()).toThrow(
      expect.objectContaining({
        code: "EngineUnavailable",
        details: expect.objectContaining({ retry_after_seconds: 1 }),
      }),
    );
    clock.now += 500;
    failures.check();
    // It starts from nothing.
    failures.crashed();
    failures.crashed();
    failures.check();
  });

  it("a broken file is not read again and again; what may be otherwise the next time is tried", () => {
    const { clock, failures } = book();
    for (const code of ["Unavailable", "Timeout", "Cancelled"] as const)
      failures.failed(new AppError(code, "-"));
    failures.failed(new Error("the caller left"));
    failures.check();
    failures.failed(new AppError("InvalidModel", "It is broken."));
    expect(() => failures.check()).toThrow("It is broken.");
    failures.clear();
    failures.check();
    failures.failed(new AppError("InvalidModel", "It is broken."));
    clock.now += 30_000;
    failures.check();
  });
});
