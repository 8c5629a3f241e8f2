import { mkdir, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findLocalModel } from "#database/models/index.ts";
import { createLogger } from "#platform/log.ts";
import { type MachineModels, startMachineModels } from "#tests/support/machine-models.ts";
import { ApiError } from "../../api-error.ts";
import { ModelRegistry } from "./registry.ts";

const NEVER = new AbortController().signal;

describe("[LLM-3] the models directory", () => {
  let machine: MachineModels;
  beforeAll(async () => {
    machine = await startMachineModels(["tiny-bpe"]);
  });
  afterAll(() => machine?.[Symbol.asyncDispose]());

  const names = async () => (await machine.models.listModels()).map(({ name }) => name);
  const path = (file: string) => join(machine.directory, file);

  it("is looked through at the start and whenever models are listed; nobody needs to say anything", async () => {
    expect(await findLocalModel(machine.db, "tiny-bpe")).toMatchObject({
      file: "tiny-bpe.gguf",
      sha256: null,
    });
    await machine.put("tiny-spm", "Meta_Llama-3.2.Q4_K_M.gguf");
    expect(await names()).toEqual(["Meta_Llama-3.2.Q4_K_M", "tiny-bpe"]);
    await machine.models.loadModel("Meta_Llama-3.2.Q4_K_M", { context_size: 64 });
    await rename(path("Meta_Llama-3.2.Q4_K_M.gguf"), path("other.gguf"));
    expect(await names()).toEqual(["other", "tiny-bpe"]);
    expect((await machine.models.status()).models).toEqual([]);
    await rename(path("other.gguf"), path("Meta_Llama-3.2.Q4_K_M.gguf"));
    const [again] = await machine.models.listModels();
    expect(again).toMatchObject({ config: { context_size: 64 }, enabled: true, kind: null });
    await rm(path("Meta_Llama-3.2.Q4_K_M.gguf"));
    expect(await names()).toEqual(["tiny-bpe"]);
  });

  it("takes nothing for a model that is none, and says so once", async () => {
    await symlink(path("tiny-bpe.gguf"), path("link.gguf"));
    await mkdir(path("folder.gguf"));
    for (const file of [
      ...["demo.gguf", "-dash.gguf", "two words.gguf", "big-00001-of-00002.gguf", ".hidden.gguf"],
      ...["half.gguf.part", "README.md"],
    ]) {
      await machine.put("tiny-bpe", file);
    }
    await writeFile(path("page.gguf"), "<!doctype html><title>Sign in</title>");
    await writeFile(path("empty.gguf"), "");
    expect(await names()).toEqual(["tiny-bpe"]);
    const told = () => machine.logged.filter((line) => line.includes("not taken for a model"));
    expect(told().length).toBe(6);
    expect(told().some((line) => line.includes("web page"))).toBe(true);
    await names();
    expect(told().length).toBe(6);
  });

  it("has one model of a name: the file that had it first keeps it", async () => {
    await machine.db.updateTable("models").set({ name: "mine" }).where("name", "=", "tiny-bpe").execute();
    await machine.put("tiny-bpe", "mine.gguf");
    expect((await machine.models.listModels()).map(({ name, file }) => [name, file])).toEqual([
      ["mine", "tiny-bpe.gguf"],
    ]);
    await rm(path("mine.gguf"));
  });

  it("does not keep a name it found for a file whose download was on its way with another", async () => {
    const log = createLogger({ level: "silent", pretty: false });
    const registry = new ModelRegistry({ db: machine.db, directory: machine.directory, log });
    const installed = async () => (await registry.list()).map(({ name }) => name);
    const model = {
      name: "named",
      file: "fetched.gguf",
      size_bytes: (await stat(path("tiny-bpe.gguf"))).size,
    };
    const before = performance.now();
    await machine.put("tiny-bpe", "fetched.gguf");
    await registry.scan();
    expect(await installed()).toEqual(["fetched", "mine"]);
    await registry.install(model, before);
    expect(await installed()).toEqual(["mine", "named"]);
    await expect(registry.install({ ...model, file: "tiny-bpe.gguf" }, before)).rejects.toMatchObject({
      code: "Conflict",
    });
    // What was there before the download stays: two names for one file, and both go with it.
    await registry.install({ ...model, name: "second" }, performance.now());
    expect(await installed()).toEqual(["mine", "named", "second"]);
    await registry.remove(await registry.find("second"));
    expect(await installed()).toEqual(["mine"]);
  });

  it("may hold a broken file: it is told in words, and tried again when it is another file", async () => {
    await machine.put("tiny-bpe", "broken.gguf", 300_000);
    await names();
    const open = () => machine.models.open("broken", NEVER);
    const refused = await open().catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(ApiError);
    expect(refused).toMatchObject({ status: 422, options: { code: "invalid_model" } });
    expect(String(refused)).not.toContain(machine.directory);
    const processes = () => machine.logged.filter((line) => line.includes("a model's process said")).length;
    const before = processes();
    await expect(open()).rejects.toMatchObject({ status: 422 });
    expect(processes()).toBe(before);
    await machine.put("tiny-bpe", "broken.gguf");
    await names();
    using use = await open();
    expect(use.model.info.kind).toBe("chat");
  });

  it("that cannot be read is no reason not to start", async () => {
    await writeFile(path("a-file"), "");
    await machine.restart({ CDS_MODELS_DIR: path("a-file") });
    expect(machine.logged.some((line) => line.includes("models directory cannot be read"))).toBe(true);
    // What cannot be read says nothing about what is installed; what is asked for is not found all the same.
    expect(await names()).toContain("mine");
    await expect(machine.models.open("mine", NEVER)).rejects.toMatchObject({ status: 404 });
  });
});
