import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { unpackKernel } from "./kernel.ts";

const SETUP_SECTORS = 4;
const PAYLOAD_OFFSET = 1000;

/** A bzImage as the boot protocol describes it, around a packed kernel. */
function bzImage(payload: Buffer): Buffer {
  const start = (SETUP_SECTORS + 1) * 512 + PAYLOAD_OFFSET;
  const image = Buffer.alloc(start + payload.length + 100);
  image.writeUInt8(SETUP_SECTORS, 0x1f1);
  image.write("HdrS", 0x202, "latin1");
  image.writeUInt32LE(PAYLOAD_OFFSET, 0x248);
  image.writeUInt32LE(payload.length, 0x24c);
  payload.copy(image, start);
  return image;
}

/** Some of it repeats, near and far, some does not. */
const random = randomBytes(300_000);
const kernel = Buffer.concat([
  Buffer.from("\x7fELF", "latin1"),
  random,
  Buffer.alloc(5_000, "ab"),
  random,
  Buffer.alloc(70_000),
]);
const size = Buffer.alloc(4);
size.writeUInt32LE(kernel.length);

const lz4 = spawnSync("lz4", ["-l", "-9", "-c"], { input: kernel, maxBuffer: 1 << 26 });

describe("unpacking a kernel", () => {
  it("knows gzip and zstd", () => {
    expect(unpackKernel(bzImage(gzipSync(kernel)))?.equals(kernel)).toBe(true);
    expect(unpackKernel(bzImage(Buffer.concat([zstdCompressSync(kernel), size])))?.equals(kernel)).toBe(true);
  });

  it.skipIf(lz4.status !== 0)(
    `knows lz4${lz4.status === 0 ? "" : " (skipped: no lz4 here to pack with)"}`,
    () => {
      expect(unpackKernel(bzImage(Buffer.concat([lz4.stdout, size])))?.equals(kernel)).toBe(true);
    },
  );

  it("lz4: literals, a match that overlaps itself, long counts", () => {
    const head = Buffer.from("\x7fELFx", "latin1");
    // 5 literals, then 15 + 255 + 10 + 4 bytes from one byte back; at last 2 literals.
    const block = Buffer.concat([
      Buffer.from([0x5f]),
      head,
      Buffer.from([1, 0, 255, 10, 0x20]),
      Buffer.from("yz"),
    ]);
    const frame = Buffer.alloc(8);
    frame.writeUInt32LE(0x184c2102);
    frame.writeUInt32LE(block.length, 4);
    const unpacked = unpackKernel(bzImage(Buffer.concat([frame, block, size])));
    expect(unpacked?.toString("latin1")).toBe(`\x7fELF${"x".repeat(285)}yz`);
  });

  it("leaves alone what it does not know", () => {
    expect(unpackKernel(bzImage(Buffer.from("something else")))).toBeUndefined();
    expect(unpackKernel(bzImage(gzipSync("no kernel")))).toBeUndefined();
    expect(unpackKernel(Buffer.alloc(4096))).toBeUndefined();
  });
});
