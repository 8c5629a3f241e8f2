import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EngineEnded, EngineProcess } from "./engine-process.ts";
import { brokenModels } from "./index.ts";

/** What the library makes of each file, by itself. */
type Fate = "refused" | "accepted" | "the process died";

/** Files nothing is wrong with as far as their headers go, or nothing the library looks at. */
const READABLE = [
  ...["header-cut", "half", "tail-cut", "unknown-version", "huge-tensor", "unknown-tensor-type"],
  ...["tensor-beyond-the-end", "not-a-number", "no-tokenizer", "missing-tensor", "unknown-architecture"],
  "no-layers",
];

describe("broken models in the real engine", () => {
  let dir: string;
  let files: Awaited<ReturnType<typeof brokenModels>>;
  let engine = new EngineProcess();
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "cds-gguf-broken-"));
    files = await brokenModels(join(dir, "models"));
  });
  afterAll(async () => {
    expect(await engine.end()).toBe(0);
    await rm(dir, { recursive: true, force: true });
  });

  /** Each file's fate, all in one process unless one ends it. */
  async function fates(kind: "read" | "load"): Promise<Record<string, Fate>> {
    const found: Record<string, Fate> = {};
    for (const { name, path } of files) {
      try {
        await engine.ask(kind === "read" ? { kind, path } : { kind, path, checkTensors: true });
        found[name] = "accepted";
      } catch (error) {
        found[name] = error instanceof EngineEnded ? "the process died" : "refused";
        if (error instanceof EngineEnded) engine = new EngineProcess();
        else if (!(error instanceof Error) || error.name !== "Error") throw error;
      }
    }
    return found;
  }
  const names = (all: Record<string, Fate>, fate: Fate) =>
    Object.keys(all).filter((name) => all[name] === fate);

  it("are different files, each with its reason", async () => {
    expect(files.length).toBeGreaterThanOrEqual(17);
    expect(new Set(files.map(({ path }) => path)).size).toBe(files.length);
    expect(new Set(files.map(({ why }) => why)).size).toBe(files.length);
    expect((await stat(join(dir, "models", "empty.gguf"))).size).toBe(0);
  });

  it("are not loaded; two of them end the process, so that it must be one of its own", async () => {
    const all = await fates("load");
    expect(names(all, "accepted")).toEqual([]);
    // A list longer than Node reads at once, and an assertion of llama.cpp.
    expect(names(all, "the process died")).toEqual(["huge-list", "no-layers"]);
  });

  it("are told from good ones by their tensors alone in one case", async () => {
    const path = files.find(({ name }) => name === "not-a-number")?.path ?? "";
    expect(await engine.ask({ kind: "load", path, checkTensors: false })).toBe(true);
    await expect(engine.ask({ kind: "load", path, checkTensors: true })).rejects.toThrow("Failed to load");
  });

  it("have headers that are read or refused, and never read without an end", async () => {
    const all = await fates("read");
    expect(names(all, "accepted")).toEqual(READABLE);
    expect(names(all, "the process died")).toEqual(["huge-list"]);
  });
});
