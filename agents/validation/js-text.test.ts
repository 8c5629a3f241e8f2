// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the texts are code with templates in it.
import { describe, expect, it } from "vitest";
import { within } from "#tests/support/within.ts";
import { jsText } from "./js-text.ts";

const code = (text: string) => jsText(text)?.code;

describe("jsText", () => {
  it("is the same for the same code with other comments", () => {
    const same: [string, string][] = [
      ["a = 1;\nb();\n", "// why\na = 1; /* more */\n\n/** long\n * text */\nb();\n"],
      ["f(a, b)", "f(/* first */ a, b /* last */)"],
      ["const x = `a ${b /* c */} // d`;", "const x = `a ${b} // d`;"],
      ["return 'it // is' + \"/* no */\"", "return 'it // is' + /* yes */ \"/* no */\""],
    ];
    for (const [left, right] of same) {
      expect(code(left)).toBeDefined();
      expect(code(left)).toBe(code(right));
    }
  });

  it("differs where the code does", () => {
    const different: [string, string][] = [
      ["a + +b", "a ++b"],
      ["return\nx", "return x"],
      ["a = '// x'", "a = '// y'"],
      ["a = /\\/\\/ x/.test(b)", "a = /\\/\\/ y/.test(b)"],
      ["a = `x // y`", "a = `x // z`"],
      ["a = `${`${'}'}`} // y`", "a = `${`${'}'}`} // z`"],
      ["a = b / c // d", "a = b / d // c"],
      ["a = { b: {} }; // c", "a = { b: {} }; c"],
      ["/* a */ b()", "/* a b() */"],
      ["return /[/'\"]/ // a", "return /[/'\"`]/ // a"],
    ];
    for (const [left, right] of different) {
      expect(code(left)).toBeDefined();
      expect(code(left)).not.toBe(code(right));
    }
  });

  it("leaves out what is written, on demand", () => {
    const text = "it.skip('it.only('); // it.todo(\n/it.only(/; `it.only(${a})`";
    expect(jsText(text)?.bare).toBe('it.skip("");\n"";""a""');
  });

  it("says nothing of what it cannot tell for certain", () => {
    for (const text of ["'open", '"a\nb"', "`open", "`${open", "/* open", "<p>don't</p>"]) {
      expect(jsText(text)).toBeUndefined();
    }
  });

  it("is done with anything in time", () => {
    for (const piece of [
      "/",
      "/*",
      "`",
      "${",
      "`${",
      "\\",
      "'",
      '"',
      "[",
      "a /",
      "= /[",
      "} ",
      "\u00e9",
      "$",
    ]) {
      within(5000, () => jsText(piece.repeat(200_000 / piece.length)));
    }
  });
});
