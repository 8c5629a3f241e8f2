import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, unlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { cachedModel, writeModel } from "./index.ts";

const INDEX = new URL("./index.ts", import.meta.url).href;
const run = promisify(execFile);

describe("the cache of models", () => {
  const outside = process.env.CDS_TEST_MODELS;
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "cds-gguf-cache-"));
    process.env.CDS_TEST_MODELS = dir;
  });
  afterEach(async () => {
    if (outside === undefined) delete process.env.CDS_TEST_MODELS;
    else process.env.CDS_TEST_MODELS = outside;
    await rm(dir, { recursive: true, force: true });
  });

  it("processes that want the same model at once get the same whole file", async () => {
    const program = `import { cachedModel } from "${INDEX}"; console.log(await cachedModel("tiny-bert"));`;
    const paths = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", program]);
        return stdout.trim();
      }),
    );
    const path = await cachedModel("tiny-bert");
    expect(new Set(paths)).toEqual(new Set([path]));
    const written = writeModel("tiny-bert", join(dir, "again.gguf"));
    expect(await readFile(path)).toEqual(await readFile(join(dir, "again.gguf")));
    expect(written.bytes).toBeGreaterThan(0);
    expect(await readdir(dirname(path))).toEqual(["tiny-bert.gguf"]);
  });

  it("a file is written once, and again when it is gone", async () => {
    const [one, two] = await Promise.all([cachedModel("tiny-bpe"), cachedModel("tiny-bpe")]);
    expect(one).toBe(two);
    expect(await readdir(dirname(one))).toEqual(["tiny-bpe.gguf"]);
    await writeFile(one, "kept");
    expect(await readFile(await cachedModel("tiny-bpe"), "utf8")).toBe("kept");
    await unlink(one);
    expect((await readFile(await cachedModel("tiny-bpe"))).subarray(0, 4).toString()).toBe("GGUF");
  });

  it("a new version removes this user's older ones, but none that is in use, and nobody else's", async () => {
    const user = process.getuid?.() ?? "all";
    const prefix = `test-models-${user}-`;
    const long = new Date(Date.now() - 7_200_000);
    const age = async (name: string) => {
      await mkdir(join(dir, name), { recursive: true });
      await utimes(join(dir, name), long, long);
    };
    for (const name of [`${prefix}old`, "test-models-elsewhere-1", "other"]) await age(name);
    await mkdir(join(dir, `${prefix}in-use`));
    const path = await cachedModel("tiny-spm");
    const present = basename(dirname(path));
    const kept = [present, `${prefix}in-use`, "test-models-elsewhere-1", "other"];
    expect((await readdir(dir)).sort()).toEqual(kept.sort());
    // Asking is using, also when the file is there.
    await age(present);
    await cachedModel("tiny-spm");
    expect((await stat(join(dir, present))).mtimeMs).toBeGreaterThan(long.getTime());
  });
});
