import { describe, expect, it } from "vitest";
import { within } from "#tests/support/within.ts";
import { testCounts } from "./test-output.ts";

describe("testCounts", () => {
  it.each([
    ["TAP", "TAP version 13\nok 1 - a\n# tests 4\n# pass 2\n# fail 1\n# skipped 1\n", 3, 1],
    ["node's spec", "✔ a (1ms)\nℹ tests 2\nℹ suites 0\nℹ pass 2\nℹ fail 0\nℹ skipped 0\n", 2, 0],
    ["two runs of node", "# pass 2\n# fail 0\n# pass 3\n# fail 1\n", 6, 1],
    ["unittest", "..s\nRan 3 tests in 0.001s\n\nOK (skipped=1)\n", 2, 0],
    ["unittest's failures", "Ran 5 tests in 0.1s\n\nFAILED (failures=1, errors=2, skipped=1)\n", 4, 3],
    ["unittest without tests", "Ran 0 tests in 0.000s\n\nNO TESTS RAN\n", 0, 0],
    ["pytest -q", "..F\n1 failed, 2 passed, 1 skipped in 0.12s\n", 3, 1],
    ["pytest", "===== 3 passed, 1 warning in 1.20s =====\n", 3, 0],
    ["pytest without tests", "no tests ran in 0.00s\n", 0, 0],
    ["jest", "Tests:       1 failed, 1 skipped, 2 passed, 4 total\n", 3, 1],
    ["vitest, coloured", " \u001b[2m     Tests \u001b[22m \u001b[32m2 passed\u001b[39m (2)\n", 2, 0],
    ["mocha", "  5 passing (12ms)\n  1 failing\n", 6, 1],
    [
      "cargo",
      "test result: ok. 5 passed; 0 failed; 0 ignored\ntest result: FAILED. 1 passed; 1 failed; 0\n",
      7,
      1,
    ],
    ["go test -v", "=== RUN   TestA\n--- PASS: TestA (0.00s)\n--- FAIL: TestB (0.00s)\nFAIL\n", 2, 1],
  ])("reads %s", (_name, output, ran, failed) => {
    expect(testCounts(output)).toEqual({ ran, failed });
  });

  it("counts nothing in what no test program said", () => {
    for (const output of ["", "all good\n", "I ran 3 tests\n", "3 passed\n", "pass 3\n"]) {
      expect(testCounts(output)).toBeUndefined();
    }
  });

  it("is not held up by output made to do so", () => {
    for (const piece of [
      "\n",
      " ",
      "1 ",
      "1 1",
      "1 passed, ",
      "Tests  ",
      "Tests: ",
      "FAILED (",
      "=",
      "\u001b[",
    ]) {
      expect(within(5000, () => testCounts(piece.repeat(32_768 / piece.length)))).toBeUndefined();
    }
  });
});
