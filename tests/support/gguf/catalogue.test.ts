import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { defineModel } from "./catalogue.ts";
import { parametersOf, writeGguf } from "./file-format.ts";
import { MODEL_NAMES, MODEL_TYPES, type ModelName, type ModelOptions, writeModel } from "./index.ts";
import { scriptedLlama } from "./scripted-weights.ts";
import { fixed, valuesOf } from "./tensors.ts";

const TINY = MODEL_NAMES.filter((name) => name.startsWith("tiny-"));
const RANDOM = TINY.filter((name) => name !== "tiny-scripted");

describe("the generator of models", () => {
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "cds-gguf-"));
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  const write = (name: ModelName, options?: ModelOptions) =>
    writeModel(name, join(dir, `${name}.gguf`), options);

  it.each(TINY)("%s: says what it wrote, and writes the same again", async (name) => {
    const first = write(name);
    const file = await readFile(join(dir, `${name}.gguf`));
    expect(file).toHaveLength(first.bytes);
    expect(createHash("sha256").update(file).digest("hex")).toBe(first.sha256);
    expect(write(name)).toEqual(first);
    expect(write(name, { seed: "1" })).toEqual(first);
  });

  it.each(RANDOM)("%s: another seed makes another model of the same size", (name) => {
    const [one, other] = [write(name, { seed: "1" }), write(name, { seed: "2" })];
    expect(other.sha256).not.toBe(one.sha256);
    expect(other).toMatchObject({ bytes: one.bytes, parameters: one.parameters });
  });

  it.each(RANDOM)("%s: smaller numbers make a smaller file", (name) => {
    const files = MODEL_TYPES.map((type) => write(name, { type }));
    const [f16, q8, q4] = files.map(({ bytes }) => bytes);
    expect(new Set(files.map(({ parameters }) => parameters)).size).toBe(1);
    expect(q8).toBeLessThan(f16 ?? 0);
    expect(q4).toBeLessThan(q8 ?? 0);
  });

  it("the scripted one does not depend on the seed, and is to be had in one type", () => {
    expect(write("tiny-scripted", { seed: "2" })).toEqual(write("tiny-scripted"));
    expect(() => write("tiny-scripted", { type: "q4_0" })).toThrow(RangeError);
  });

  it.each([
    ["llama-0.5b", 0.494e9],
    ["llama-1b", 1.236e9],
    ["llama-3b", 3.213e9],
  ] as const)("%s has as many parameters as the model it has its shape from", (name, parameters) => {
    // Biases of the one and frequencies of the others are not counted.
    expect(parametersOf(defineModel(name).tensors) / parameters).toBeCloseTo(1, 3);
  });

  it("large models are made piece by piece", () => {
    const { tensors } = defineModel("llama-1b");
    const embedding = tensors.find(({ name }) => name === "token_embd.weight");
    if (embedding === undefined) throw new Error("no embedding");
    let [bytes, largest] = [0, 0];
    for (const piece of embedding.pieces()) {
      bytes += piece.length;
      largest = Math.max(largest, piece.length);
    }
    expect(bytes).toBe((valuesOf(embedding) / 32) * 18);
    expect(largest).toBeLessThan(2 ** 21);
  });

  it("a tensor whose data is not what its shape says is not written", () => {
    const short = { ...fixed("x", [32], "f16", new Float32Array(16)) };
    expect(() => writeGguf(join(dir, "x"), { metadata: [], tensors: [short] })).toThrow("x: 32 bytes");
    const ragged = fixed("y", [33], "q8_0", new Float32Array(64));
    expect(() => writeGguf(join(dir, "x"), { metadata: [], tensors: [ragged] })).toThrow(
      "whole blocks of 32",
    );
  });

  it("a script that does not fit is refused", () => {
    const vocabulary = { size: 513, metadata: [], id: () => 0 };
    const script = { name: "x", contextLength: 1, vocabulary, next: new Map(), switches: [], otherwise: [] };
    expect(() => scriptedLlama(script)).toThrow("513 tokens");
  });
});
