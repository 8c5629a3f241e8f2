import { describe, expect, it } from "vitest";
import { AppError, type StepOrder } from "#schemas";
import { basesOf } from "./dependents.ts";
import { checkSteps } from "./steps.ts";

/** What is wrong with steps, as path and message; empty when nothing is. */
function wrong(steps: readonly StepOrder[]): string[] {
  try {
    checkSteps(steps);
    return [];
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    expect(error.code).toBe("InvalidParams");
    expect(error.details.hint).toContain("after");
    return (error.details.issues ?? []).map(({ path, message }) => `${path} ${message}`);
  }
}

describe("checkSteps", () => {
  it("takes what can all run, in whatever order it is given", () => {
    expect(wrong([{ id: "one" }])).toEqual([]);
    expect(
      wrong([{ id: "d", after: ["b", "c"] }, { id: "b", after: ["a"] }, { id: "c" }, { id: "a" }]),
    ).toEqual([]);
    expect(wrong(Array.from({ length: 20 }, (_, n) => ({ id: `s${n}` })))).toEqual([]);
  });

  it("refuses none and more than twenty", () => {
    expect(wrong([])).toEqual(["steps has 0 steps"]);
    expect(wrong(Array.from({ length: 21 }, (_, n) => ({ id: `s${n}` })))).toEqual(["steps has 21 steps"]);
  });

  it("names every double and every unknown name", () => {
    expect(wrong([{ id: "a" }, { id: "a", after: ["b", "a", "c"] }])).toEqual([
      'steps[1].id "a" is there already',
      'steps[1].after[0] there is no step "b"',
      'steps[1].after[2] there is no step "c"',
    ]);
  });

  it("names a circle without those that only lead to it", () => {
    expect(wrong([{ id: "a", after: ["a"] }])).toEqual(['steps "a" after "a"']);
    const steps = [
      { id: "free" },
      { id: "x", after: ["b"] },
      { id: "b", after: ["free", "c"] },
      { id: "c", after: ["b"] },
    ];
    expect(wrong(steps)).toEqual(['steps "b" after "c" after "b"']);
  });
});

describe("basesOf", () => {
  const made = new Map<string, readonly string[]>([
    ["a", ["given"]],
    ["b", ["a"]],
    ["c", ["a"]],
    ["d", ["b", "c"]],
  ]);
  const step = (change_id: string | null, ...builds_on: string[]) => ({
    change_id,
    builds_on,
    resolves: null,
  });

  it("leaves out what another change contains, however deep", () => {
    expect(basesOf([], [step("b", "a"), step("c", "a")], made)).toEqual(["b", "c"]);
    expect(basesOf(["given"], [step("a", "given"), step("b", "a")], made)).toEqual(["b"]);
    expect(basesOf(["given"], [step("d", "b", "c"), step("a", "given")], made)).toEqual(["d"]);
  });

  it("looks through a step that changed nothing", () => {
    expect(basesOf([], [step(null, "b", "c"), step(null, "b"), step(null)], made)).toEqual(["b", "c"]);
    expect(basesOf(["other"], [step(null)], made)).toEqual(["other"]);
  });
});
