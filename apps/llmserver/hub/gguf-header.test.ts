import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { ggufBytes } from "#tests/support/hub.ts";
import { checkGgufHeader } from "./index.ts";

describe("the header of a GGUF file", () => {
  const base = mkdtempSync(join(tmpdir(), "cds-gguf-"));
  const path = join(base, "x.gguf");
  afterAll(() => rmSync(base, { recursive: true }));
  const check = (bytes: Uint8Array | string) => {
    writeFileSync(path, bytes);
    return checkGgufHeader(path);
  };
  /** A good file with one thing changed. */
  const changed = (change: (bytes: Buffer) => void) => {
    const bytes = ggufBytes(4096);
    change(bytes);
    return bytes;
  };

  it("is read: version and counts", async () => {
    expect(await check(ggufBytes(4096))).toEqual({ version: 3, tensors: 2, metadata: 3 });
    expect(await check(changed((bytes) => bytes.writeUInt32LE(2, 4)))).toMatchObject({ version: 2 });
  });

  it.each<[string, Uint8Array | string, RegExp]>([
    ["nothing", "", /empty/],
    ["a web page", "\n<!DOCTYPE html><html>", /web page/],
    ["a web page without doctype", "<html><body>", /web page/],
    ["a pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00", /Git LFS/],
    ["an error in JSON", '{"error":"Entry not found"}', /JSON/],
    [
      "another format",
      Buffer.from("PK\x03\x04 a zip file, perhaps, of some length"),
      /does not begin with GGUF/,
    ],
    ["the magic in small letters", changed((bytes) => bytes.write("gguf")), /does not begin with GGUF/],
    ["half a magic", "GG", /does not begin with GGUF/],
    ["the magic alone", "GGUF", /ends within its header/],
    ["a header cut short", ggufBytes(4096).subarray(0, 23), /ends within its header/],
    ["version 1", changed((bytes) => bytes.writeUInt32LE(1, 4)), /version 1 is not supported/],
    ["version 4", changed((bytes) => bytes.writeUInt32LE(4, 4)), /version 4 is not supported/],
    ["big-endian", changed((bytes) => bytes.writeUInt32BE(3, 4)), /big-endian/],
    ["no tensors", changed((bytes) => bytes.writeBigUInt64LE(0n, 8)), /no tensors or no metadata/],
    ["no metadata", changed((bytes) => bytes.writeBigUInt64LE(0n, 16)), /no tensors or no metadata/],
    ["all ones", changed((bytes) => bytes.fill(0xff, 8, 24)), /absurd: 18446744073709551615 tensors/],
    ["more tensors than there is room for", changed((bytes) => bytes.writeBigUInt64LE(200n, 8)), /absurd/],
    ["more metadata than there is room for", changed((bytes) => bytes.writeBigUInt64LE(300n, 16)), /absurd/],
    ["a header and nothing else", ggufBytes(24), /absurd/],
  ])("%s is refused", async (_name, bytes, message) => {
    const failure = await check(bytes).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "InvalidModel", message: expect.stringMatching(message) });
  });

  it("what is no file, or not there, is told apart and waited for by nobody", async () => {
    await expect(checkGgufHeader(base)).rejects.toMatchObject({
      code: "InvalidModel",
      message: "That is no file.",
    });
    await expect(checkGgufHeader(join(base, "none.gguf"))).rejects.toMatchObject({ code: "NotFound" });
    await expect(checkGgufHeader(join(path, "x.gguf"))).rejects.toMatchObject({ code: "InvalidModel" });
    const pipe = join(base, "pipe.gguf");
    execFileSync("mkfifo", [pipe]);
    await expect(checkGgufHeader(pipe)).rejects.toMatchObject({
      code: "InvalidModel",
      message: "That is no file.",
    });
  });

  it("any bytes are a header or a refusal", async () => {
    const start = fc.constantFrom(Buffer.alloc(0), Buffer.from("GGUF"), Buffer.from("GGUF\x03\0\0\0"));
    await fc.assert(
      fc.asyncProperty(start, fc.uint8Array({ maxLength: 200 }), async (head, rest) => {
        const result = await check(Buffer.concat([head, rest])).catch((error: unknown) => error);
        if (result instanceof AppError) expect(result.code).toBe("InvalidModel");
        else expect(result).toMatchObject({ version: expect.any(Number), tensors: expect.any(Number) });
      }),
      { numRuns: 300 },
    );
  });
});
