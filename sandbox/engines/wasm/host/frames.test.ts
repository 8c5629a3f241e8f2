import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeFrame, FrameReader } from "./frames.ts";

const LIMITS = { headerBytes: 1000, payloadBytes: 5000 };

describe("frames", () => {
  it("come out as they went in, however the stream is cut", () => {
    const frame = fc.record({
      header: fc.record({ text: fc.string() }),
      payload: fc.uint8Array({ maxLength: 300 }),
    });
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 8 }), fc.integer({ min: 1, max: 500 }), (frames, size) => {
        const stream = Buffer.concat(frames.flatMap(({ header, payload }) => encodeFrame(header, payload)));
        const reader = new FrameReader(LIMITS);
        const out: unknown[] = [];
        for (let at = 0; at < stream.length; at += size) {
          for (const { header, payload } of reader.push(stream.subarray(at, at + size))) {
            out.push({ header, payload: new Uint8Array(payload) });
          }
        }
        expect(out).toEqual(frames);
      }),
    );
  });

  it("hold copies when they are copied: a chunk may be used again", () => {
    const bytes = Buffer.concat(encodeFrame({}, new Uint8Array([1, 2, 3])));
    const [frame] = [...new FrameReader(LIMITS).push(bytes)];
    const copy = frame?.payload.slice();
    bytes.fill(0);
    expect(copy).toEqual(new Uint8Array([1, 2, 3]));
  });

  it.each<[string, number[]]>([
    ["too long a header", [0xe9, 3, 0, 0, 0, 0, 0, 0]],
    ["too long a payload", [2, 0, 0, 0, 0x89, 0x13, 0, 0]],
    ["the longest of all", [255, 255, 255, 255, 255, 255, 255, 255]],
    ["a header that is no JSON", [1, 0, 0, 0, 0, 0, 0, 0, 0x7b]],
    ["a header that is no object", [4, 0, 0, 0, 0, 0, 0, 0, ...Buffer.from("null")]],
    ["a header that is not UTF-8", [1, 0, 0, 0, 0, 0, 0, 0, 255]],
  ])("with %s are refused before more is read", (_what, bytes) => {
    expect(() => [...new FrameReader(LIMITS).push(new Uint8Array(bytes))]).toThrow();
  });
});
