import { describe, expect, it, vi } from "vitest";
import { MAX_JSON_DEPTH, MAX_JSON_PARTS, parseForeignJson } from "./json.ts";

const nested = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;

describe("JSON that somebody else wrote", () => {
  it("is taken up to the depth allowed and refused one level further", () => {
    expect(JSON.stringify(parseForeignJson(nested(MAX_JSON_DEPTH)))).toBe(nested(MAX_JSON_DEPTH));
    expect(() => parseForeignJson(nested(MAX_JSON_DEPTH + 1))).toThrow("levels deep");
    expect(() => parseForeignJson(`{"a":${nested(MAX_JSON_DEPTH)}}`)).toThrow(SyntaxError);
    expect(parseForeignJson("[[1],[2],[3]]", undefined, { depth: 2 })).toEqual([[1], [2], [3]]);
    expect(() => parseForeignJson('{"a":{"b":{"c":[]}}}', undefined, { depth: 3 })).toThrow(SyntaxError);
  });

  it("is refused before it costs anything, however deep or wide it is", () => {
    expect(() => JSON.stringify(JSON.parse(nested(20_000)))).toThrow(RangeError);
    const parse = vi.spyOn(JSON, "parse");
    expect(() => parseForeignJson(nested(8_000_000))).toThrow("levels deep");
    expect(() => parseForeignJson(`[${"[],".repeat(5_000_000)}1]`)).toThrow("parts");
    expect(() => parseForeignJson(`[${"1,".repeat(MAX_JSON_PARTS)}1]`)).toThrow("parts");
    expect(parse).not.toHaveBeenCalled();
    parse.mockRestore();
  });

  it("may hold anything inside of strings", () => {
    for (const value of ["[".repeat(1000), '\\"['.repeat(1000), ",".repeat(MAX_JSON_PARTS + 1), "\\"]) {
      expect(parseForeignJson(JSON.stringify({ [value]: [value] }))).toEqual({ [value]: [value] });
    }
  });

  it("is otherwise what JSON.parse makes of it", () => {
    for (const text of ["1", '"[[["', "null", `{"a":[${"1,".repeat(1000)}2]}`, '{"__proto__":1}']) {
      expect(parseForeignJson(text)).toEqual(JSON.parse(text));
    }
    for (const text of ["{", "]", '"', '"\\', "", "[1,]", '{"a":"b]'])
      expect(() => parseForeignJson(text)).toThrow(SyntaxError);
    expect(parseForeignJson('{"a":1}', (key, value) => (key === "a" ? 2 : value))).toEqual({ a: 2 });
  });
});
