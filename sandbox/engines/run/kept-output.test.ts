import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { KeptOutput, unfinishedBytes } from "./kept-output.ts";

const kept = (limit: number, ...chunks: (string | Buffer)[]) => {
  const output = new KeptOutput(limit);
  for (const chunk of chunks) output.add(Buffer.from(chunk));
  return { text: output.bytes().toString("utf8"), truncated: output.truncated };
};

describe("kept output", () => {
  it("is everything up to its limit", () => {
    expect(kept(10)).toEqual({ text: "", truncated: false });
    expect(kept(10, "01234", "56789")).toEqual({ text: "0123456789", truncated: false });
    expect(kept(1, "a")).toEqual({ text: "a", truncated: false });
  });

  it("is the beginning and the end beyond it, and tells what is missing between", () => {
    const text = "01234\n[... 10 bytes left out ...]\nvwxyz";
    expect(kept(10, "0123456789", "abcdevwxyz")).toEqual({ text, truncated: true });
    expect(kept(10, ..."0123456789abcdevwxyz")).toEqual({ text, truncated: true });
    expect(kept(1, "abc")).toEqual({ text: "a\n[... 2 bytes left out ...]\n", truncated: true });
  });

  it("tears no letter at either side of the gap", () => {
    const { text } = kept(10, "äöüßé", "xxxx", "€üöäéx");
    expect(text).toBe("äö\n[... 17 bytes left out ...]\näéx");
  });

  it("is the same however the output came in pieces, and never more than was asked for", () => {
    const cases = fc.tuple(fc.array(fc.uint8Array({ maxLength: 40 })), fc.integer({ min: 1, max: 64 }));
    fc.assert(
      fc.property(cases, ([chunks, limit]) => {
        const whole = Buffer.concat(chunks);
        const result = kept(limit, ...chunks.map((chunk) => Buffer.from(chunk)));
        expect(result).toEqual(kept(limit, whole));
        expect(result.truncated).toBe(whole.length > limit);
        if (!result.truncated) expect(result.text).toBe(whole.toString("utf8"));
      }),
    );
  });

  it("of text is always text", () => {
    const cases = fc.tuple(fc.string({ unit: "grapheme", minLength: 1 }), fc.integer({ min: 1, max: 64 }));
    fc.assert(
      fc.property(cases, ([text, limit]) => {
        expect(kept(limit, text).text).not.toContain("\ufffd");
      }),
    );
  });
});

it("a letter that is not finished is known by its first byte", () => {
  const ends = (...bytes: number[]) => unfinishedBytes(Buffer.from(bytes));
  expect(ends()).toBe(0);
  expect(ends(0x61)).toBe(0);
  expect(ends(0x61, 0xc3)).toBe(1);
  expect(ends(0xc3, 0xa4)).toBe(0);
  expect(ends(0xe2, 0x82)).toBe(2);
  expect(ends(0xe2, 0x82, 0xac)).toBe(0);
  expect(ends(0xf0, 0x9f, 0x98)).toBe(3);
  expect(ends(0xf0, 0x9f, 0x98, 0x80)).toBe(0);
  expect(ends(0x80, 0x80, 0x80, 0x80)).toBe(0);
});
