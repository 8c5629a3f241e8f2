import { describe, expect, it } from "vitest";
import { within } from "#tests/support/within.ts";
import { holdsTests, isTestPath, testFile } from "./test-files.ts";

describe("test files", () => {
  it("are known by their names", () => {
    const tests = [
      "a.test.ts",
      "a/b.spec.jsx",
      "test_a.py",
      "a_test.go",
      "src/ATest.java",
      "tests/data.json",
      "__tests__/a.js",
    ];
    const others = ["a.ts", "latest.js", "contest.py", "attest/a.js", "testing.md", "src/Attest.java"];
    expect(tests.filter((path) => !isTestPath(path))).toEqual([]);
    expect(others.filter((path) => isTestPath(path))).toEqual([]);
  });

  it("are counted in their code, by the manner of their language", () => {
    const counts = (path: string, text: string) => Object.values(testFile(path, text)).join(" ");
    expect(
      counts("a.test.js", "it('a', () => { expect(1).toBe(1); assert(2); }); // it(\nit.skip('b');"),
    ).toBe("2 2 1");
    expect(
      counts("a.test.ts", "test.each([1])('a'); describe.only('b'); t.is(1, 1); xit('c'); obj.test(x)"),
    ).toBe("1 1 2");
    expect(counts("a.test.js", "test('a', { skip: false }); test('b', { skip: why }); t.skip()")).toBe(
      "2 0 2",
    );
    expect(
      counts(
        "test_a.py",
        "def test_a():\n    assert 1 # assert\n    self.assertEqual(1, 1)\n    x = 'assert'\n",
      ),
    ).toBe("1 2 0");
    expect(
      counts("test_a.py", "@pytest.mark.skipif(x)\ndef test_a(self):\n    with pytest.raises(A): pass\n"),
    ).toBe("1 1 1");
    expect(
      counts("a_test.go", "func TestA(t *testing.T) {\n  t.Fatal()\n  // t.Skip()\n  t.Skip()\n}\n"),
    ).toBe("1 1 1");
    expect(counts("tests/a.rs", "#[test]\n#[ignore]\nfn a() { assert_eq!(1, 1); }\n")).toBe("1 1 1");
  });

  it("hold tests, or only what tests need", () => {
    expect(holdsTests("tests/data.json", '{"a": 1}')).toBe(false);
    expect(holdsTests("tests/helper.js", "export const a = 1;")).toBe(false);
    expect(holdsTests("a.js", "test('a')")).toBe(false);
    expect(holdsTests("tests/a.js", "test('a')")).toBe(true);
  });

  it("are counted in time, whatever they hold", () => {
    for (const piece of [
      "it .",
      "assert.a ",
      "it",
      "t . ",
      "'''",
      '\\"',
      "\\'",
      "@pytest",
      " ",
      "\n",
      "{ skip ",
      "expect.a.",
    ]) {
      const text = piece.repeat(500_000 / piece.length);
      for (const path of ["a.test.js", "test_a.py", "a_test.go"]) within(10_000, () => testFile(path, text));
    }
  });
});
