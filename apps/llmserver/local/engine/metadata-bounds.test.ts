import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkBounds } from "./metadata-bounds.ts";
import { LoadRefusal } from "./refusal.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "cds-bounds-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value: bigint | number) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const text = (value: string) => Buffer.concat([u64(value.length), Buffer.from(value)]);
const file = (tensors: bigint | number, entries: bigint | number, ...rest: Buffer[]) =>
  Buffer.concat([Buffer.from("GGUF"), u32(3), u64(tensors), u64(entries), ...rest]);
const LIST = 9;
const padding = Buffer.alloc(256);

async function refusal(bytes: Buffer): Promise<string> {
  const path = join(dir, "model.gguf");
  await writeFile(path, bytes);
  const error = await checkBounds(path).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error === undefined) return "";
  expect(error).toBeInstanceOf(LoadRefusal);
  expect(error).toMatchObject({ code: "InvalidModel" });
  return (error as LoadRefusal).message;
}

describe("the header of a model's file", () => {
  it("that keeps to its own size passes", async () => {
    const list = Buffer.concat([u32(LIST), u32(8), u64(2), text("one"), text("two")]);
    const numbers = Buffer.concat([u32(LIST), u32(5), u64(3), Buffer.alloc(12)]);
    const tensor = Buffer.concat([text("weights"), u32(2), u64(4), u64(4), u32(0), u64(0)]);
    const entries = [
      text("a"),
      u32(8),
      text("x"),
      text("b"),
      list,
      text("c"),
      numbers,
      text("d"),
      u32(7),
      Buffer.from([1]),
    ];
    expect(await refusal(file(1, 4, ...entries, tensor))).toBe("");
  });

  it("that claims more than the file holds is refused before anything is reserved for it", async () => {
    expect(await refusal(file(2n ** 60n, 0, padding))).toContain("tensors");
    expect(await refusal(file(0, 2n ** 62n, padding))).toContain("metadata");
    expect(await refusal(file(0, 1, u64(2n ** 40n), padding))).toContain("bytes of text");
    expect(await refusal(file(0, 1, text("a"), u32(LIST), u32(4), u64(2n ** 40n), padding))).toContain(
      "list",
    );
    expect(await refusal(file(0, 1, text("a"), u32(LIST), u32(8), u64(2n ** 31n), padding))).toContain(
      "list",
    );
    expect(
      await refusal(file(0, 1, text("a"), u32(LIST), u32(8), u64(2), u64(2n ** 50n), padding)),
    ).toContain("text");
  });

  it("that is none is refused in words", async () => {
    expect(await refusal(Buffer.from("<html>not found</html>, and more of it"))).toContain("no GGUF");
    expect(await refusal(Buffer.from("GG"))).toContain("too short");
    expect(await refusal(Buffer.concat([Buffer.from("GGUF"), u32(99), padding]))).toContain("version 99");
    expect(await refusal(file(0, 1, text("a"), u32(77), padding))).toContain("type 77");
    expect(await refusal(file(0, 1, text("a"), u32(LIST), u32(LIST), u64(1), padding))).toContain(
      "list of lists",
    );
    expect(await refusal(file(1, 0, text("t"), u32(9), padding))).toContain("9 dimensions");
    await expect(checkBounds(join(dir, "missing.gguf"))).rejects.toThrow("cannot be opened");
  });
});
