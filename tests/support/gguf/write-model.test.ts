import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MODEL_NAMES, writeModel } from "./index.ts";

const SCRIPT = fileURLToPath(new URL("../../../scripts/write-model.ts", import.meta.url));

describe("npm run model", () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "cds-write-model-"));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  const run = (...args: string[]) =>
    new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
      execFile(process.execPath, [SCRIPT, ...args], (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : error.code, stdout, stderr }),
      );
    });

  it("writes the model that was asked for, and says what it wrote", async () => {
    const [path, same] = [join(dir, "out.gguf"), join(dir, "same.gguf")];
    const { code, stdout } = await run("tiny-spm", path, "--seed", "7", "--type", "q4_0");
    expect(code).toBe(0);
    const { bytes, sha256 } = writeModel("tiny-spm", same, { seed: "7", type: "q4_0" });
    expect(await readFile(path)).toEqual(await readFile(same));
    expect(stdout).toContain(`${path}: ${bytes} bytes`);
    expect(stdout).toContain(sha256);
  });

  it("says how it is used", async () => {
    const { code, stdout } = await run("--help");
    expect(code).toBe(0);
    for (const name of MODEL_NAMES) expect(stdout).toContain(name);
  });

  it.each<[string, string[], RegExp]>([
    ["an unknown name", ["tiny", "out.gguf"], /no model "tiny"; there are tiny-bpe, .*llama-3b/],
    ["an unknown type", ["tiny-bpe", "out.gguf", "--type", "q5"], /no type "q5"; there are f16, q8_0, q4_0/],
    ["a type it does not have", ["tiny-scripted", "out.gguf", "--type", "q4_0"], /computed for f16/],
    ["no file", ["tiny-bpe"], /Name the file/],
    ["nothing", [], /npm run model/],
    ["too much", ["tiny-bpe", "out.gguf", "more"], /more/],
    ["an unknown option", ["tiny-bpe", "out.gguf", "--size", "1"], /--size/],
  ])("refuses %s with 2", async (_name, args, message) => {
    const { code, stderr } = await run(...args.map((arg) => (arg === "out.gguf" ? join(dir, arg) : arg)));
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\bat .*:\d+/);
    expect(await readdir(dir)).toEqual([]);
  });

  it("fails with 1 when it cannot write", async () => {
    const { code, stderr } = await run("tiny-bpe", join(dir, "none", "out.gguf"));
    expect(code).toBe(1);
    expect(stderr).toMatch(/ENOENT/);
  });
});
