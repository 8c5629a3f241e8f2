import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { replaceText } from "./replace.ts";

/** Texts in which parts are found often enough to be worth it; `$&` means something to a careless replacement. */
const letters = ["a", "b", "$", "&", "ä", "𝔘", " ", "\n"];
const text = fc.string({ unit: fc.constantFrom(...letters), maxLength: 40, size: "max" });
const part = fc.string({ unit: fc.constantFrom(...letters), minLength: 1, maxLength: 4 });

describe("replacing text in a file", () => {
  it("replaces what stands there once, nothing else changes, and it can be undone", () => {
    fc.assert(
      fc.property(text, part, text, text, (before, stem, tail, after) => {
        // The last letter stands nowhere else, the ones before it do.
        const [old, next] = [`${stem}Ω`, `${tail}Ψ`];
        const changed = replaceText(before + old + after, old, next).text;
        expect(changed).toBe(before + next + after);
        expect(replaceText(changed, next, old).text).toBe(before + old + after);
      }),
    );
  });

  it("replaces everywhere when told to, as split and join do", () => {
    fc.assert(
      fc.property(fc.array(text, { minLength: 2, maxLength: 6 }), part, text, (parts, old, next) => {
        fc.pre(old !== next);
        const whole = parts.join(old);
        const { text: changed, lines } = replaceText(whole, old, next, true);
        expect(changed).toBe(whole.split(old).join(next));
        expect(lines).toHaveLength(whole.split(old).length - 1);
        expect(lines.every((line, index) => line >= (lines[index - 1] ?? 1))).toBe(true);
      }),
    );
  });

  it("changes nothing without being sure: none, several, or nothing to do", () => {
    fc.assert(
      fc.property(text, part, (whole, old) => {
        fc.pre(whole.split(old).length !== 2);
        expect(() => replaceText(whole, old, "new")).toThrow();
      }),
    );
    expect(() => replaceText("a", "", "b")).toThrow("oldString is empty");
    expect(() => replaceText("a", "a", "a")).toThrow("the same");
    expect(() => replaceText("x\na\na\n", "a", "b")).toThrow("there 2 times (lines 2, 3)");
  });

  it("finds a text with LF in a file with CRLF, and keeps its line ends", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom("a", "b", ""), { minLength: 1, maxLength: 6 }), (lines) => {
        const file = `first\r\nold\r\nlast\r\n${lines.join("\r\n")}`;
        const changed = replaceText(file, "first\nold\n", `${lines.join("\n")}\n`).text;
        expect(changed).toBe(`${lines.join("\r\n")}\r\nlast\r\n${lines.join("\r\n")}`);
        expect(/(^|[^\r])\n/.test(changed)).toBe(false);
      }),
    );
    // Mixed line ends are nobody's rule: letter for letter.
    expect(replaceText("a\r\nb\nc", "b\nc", "d\ne").text).toBe("a\r\nd\ne");
  });

  it("refuses what would fill the memory, and counts no more places than anybody means", () => {
    const long = "a".repeat(10_000_000);
    expect(() => replaceText(long, "a", "b")).toThrow("more than 50000 times");
    expect(() => replaceText(long, "a", "b", true)).toThrow("too much to replace");
    expect(() => replaceText("a".repeat(50_000), "a", "b".repeat(4000), true)).toThrow("too much to replace");
    expect(replaceText("a".repeat(50_000), "a", "bc", true).text).toBe("bc".repeat(50_000));
  });

  it("names the nearest line when it is not there", () => {
    const file = "import x\n\nfunction add(one, other) {\n  return one + other;\n}\n";
    expect(() => replaceText(file, "  function add(one,other) {\n", "x")).toThrow(
      /nearest to its first line is line 3: "function add\(one, other\) \{"/,
    );
    expect(() => replaceText(file, "nothing like it", "x")).toThrow(
      /^oldString is not in the file\. It must/,
    );
  });
});
