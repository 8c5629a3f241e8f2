import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { JsonEnd } from "./json-end.ts";

describe("the end of a JSON value", () => {
  it("is found wherever the pieces are cut, with nothing around it", () => {
    fc.assert(
      fc.property(fc.json(), fc.constantFrom("\n\n\n\n", " ", "\n}"), fc.nat(), (json, tail, cut) => {
        const text = `\n ${json}${tail}`;
        const at = cut % (text.length + 1);
        const end = new JsonEnd();
        const value = end.push(text.slice(0, at)) + end.push(text.slice(at));
        expect(value).toBe(json.trim());
        expect(end.done).toBe(true);
      }),
    );
  });

  it("is not where a string only looks like it", () => {
    const end = new JsonEnd();
    expect(end.push('{"a": "}\\"}')).toBe('{"a": "}\\"}');
    expect(end.done).toBe(false);
    expect(end.push('"}, and more')).toBe('"}');
    expect(end.done).toBe(true);
    expect(end.push("x")).toBe("");
  });
});
