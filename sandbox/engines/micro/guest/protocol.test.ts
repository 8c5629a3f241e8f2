import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { encodeJson, encodeStdin, type Frame, FrameDecoder, NONCE_BYTES, syncFrame } from "./protocol.ts";

const NONCE = Buffer.alloc(NONCE_BYTES, 7);
const READY = encodeJson({ event: "ready", version: 1 });

/** As the agent would say it: the same frames, told by type. */
function output(type: 2 | 3, id: number, data: Uint8Array): Buffer {
  const frame = encodeStdin(id, Buffer.from(data));
  frame.writeUInt8(type, 4);
  return frame;
}

function jsonFrame(text: string): Buffer {
  const frame = encodeStdin(0, Buffer.from(text.slice(4)));
  frame.writeUInt8(1, 4);
  frame.write(text.slice(0, 4), 5);
  return frame;
}

function decode(bytes: Buffer, sizes: readonly number[], nonce = NONCE): Frame[] {
  const decoder = new FrameDecoder(nonce);
  const frames: Frame[] = [];
  let at = 0;
  for (let turn = 0; at < bytes.length; turn += 1) {
    const size = sizes[turn % sizes.length] ?? 1;
    frames.push(...decoder.push(bytes.subarray(at, at + size)));
    at += size;
  }
  return frames;
}

const pieces = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 20 });

describe("frames from a guest", () => {
  it("[SB-micro] come out whole and in order, in whatever pieces they arrive, whatever was said before", () => {
    const message = fc.record({
      type: fc.constantFrom(2 as const, 3 as const),
      id: fc.integer({ min: 1, max: 0xffff_ffff }),
      data: fc.uint8Array({ minLength: 1, maxLength: 200 }),
    });
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.array(message), pieces, (before, messages, sizes) => {
        const sent = messages.map(({ type, id, data }) => output(type, id, data));
        const bytes = Buffer.concat([Buffer.from(before), syncFrame(NONCE), READY, ...sent]);
        const [first, ...rest] = decode(bytes, sizes);
        expect(first).toEqual({ type: "json", message: { event: "ready", version: 1 } });
        expect(rest).toEqual(
          messages.map(({ type, id, data }) => ({
            type: type === 2 ? "stdout" : "stderr",
            id,
            data: Buffer.from(data),
          })),
        );
      }),
    );
  });

  it("[SB-micro] garbage after the start is an AppError or nothing, never anything else", () => {
    const part = fc.oneof(
      fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
      fc.json().map((text) => encodeJson(JSON.parse(`[${text}]`))),
      fc.dictionary(fc.constantFrom("id", "ok", "event", "error", "bytes"), fc.jsonValue()).map(encodeJson),
    );
    fc.assert(
      fc.property(fc.array(part), pieces, (parts, sizes) => {
        try {
          for (const frame of decode(Buffer.concat([syncFrame(NONCE), ...parts]), sizes)) {
            expect(["json", "stdout", "stderr"]).toContain(frame.type);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(AppError);
          expect(error).toMatchObject({ code: "Unavailable" });
        }
      }),
      { numRuns: 200 },
    );
  });

  it.each([
    ["an empty frame", Buffer.alloc(8)],
    ["a length of 4 GiB", Buffer.from([255, 255, 255, 255, 1])],
    ["a length of 1 MiB and one", Buffer.from([0, 16, 0, 1, 2])],
    ["a type that is none", Buffer.from([0, 0, 0, 2, 9, 0])],
    ["input", encodeStdin(1, Buffer.from("x"))],
    ["output without an owner", Buffer.from([0, 0, 0, 3, 2, 0, 0])],
    ["a message of 900 KiB", encodeJson({ id: 1, error: "x".repeat(900 * 1024) })],
    ["an id that is none", encodeJson({ id: 2 ** 32, ok: true })],
    ["an unknown event", encodeJson({ id: 1, event: "party" })],
    ["deep JSON", jsonFrame(`${"[".repeat(200_000)}${"]".repeat(200_000)}`)],
  ])("[SB-micro] refuses %s", (_name, bytes) => {
    expect(() => decode(Buffer.concat([syncFrame(NONCE), READY, bytes]), [1000])).toThrow(AppError);
  });

  it("[SB-micro] gives up on a guest that talks without end and never answers", () => {
    const decoder = new FrameDecoder(NONCE);
    const noise = Buffer.alloc(1024 * 1024, 1);
    expect(() => {
      for (let round = 0; round < 8; round += 1) for (const _ of decoder.push(noise)) expect.unreachable();
    }).toThrow(AppError);
  });

  it("another conversation's beginning is not ours", () => {
    const bytes = Buffer.concat([syncFrame(Buffer.alloc(NONCE_BYTES, 8)), READY]);
    expect(decode(bytes, [13])).toEqual([]);
  });

  it("refuses to send what no agent takes", () => {
    expect(() => encodeJson({ argv: ["x".repeat(1024 * 1024)] })).toThrow(AppError);
  });
});
