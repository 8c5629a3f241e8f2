import { describe, expect, it } from "vitest";
import { startDownloads } from "#tests/support/downloads.ts";
import { ggufBytes, sha256, startHub } from "#tests/support/hub.ts";
import { chooseQuant } from "./repository.ts";

describe("a quantisation's file", () => {
  const files = [
    "README.md",
    "tiny-Q4_0.gguf",
    "tiny-Q4_K_M.gguf",
    "tiny.IQ4_XS.gguf",
    "tiny-Q4_0_4_4.gguf",
    "tiny-Q5_K_M-imat.gguf",
    "sub/Q8_0.gguf",
    "mmproj-tiny-F16.gguf",
    "tiny-F16.gguf",
    "UD/tiny-UD-Q2_K_XL.gguf",
    "tiny-Q6_K-00001-of-00002.gguf",
    "tiny-Q6_K-00002-of-00002.gguf",
    "tiny-Q3_K_S.gguf",
    "tiny-Q3_K_S-v2.gguf",
    "a-BF16.gguf",
    "b-BF16.gguf",
  ];

  it.each<[string, string[]]>([
    ["Q4_K_M", ["tiny-Q4_K_M.gguf"]],
    ["q4_k_m", ["tiny-Q4_K_M.gguf"]],
    ["Q4_0", ["tiny-Q4_0.gguf"]],
    ["IQ4_XS", ["tiny.IQ4_XS.gguf"]],
    ["Q4_XS", []],
    ["Q4", []],
    ["Q5_K_M", ["tiny-Q5_K_M-imat.gguf"]],
    ["Q8_0", ["sub/Q8_0.gguf"]],
    ["F16", ["tiny-F16.gguf"]],
    ["UD-Q2_K_XL", ["UD/tiny-UD-Q2_K_XL.gguf"]],
    ["Q3_K_S", ["tiny-Q3_K_S.gguf"]],
    ["BF16", ["a-BF16.gguf", "b-BF16.gguf"]],
    ["Q6_K", ["tiny-Q6_K-00001-of-00002.gguf", "tiny-Q6_K-00002-of-00002.gguf"]],
  ])("%s", (quant, found) => {
    expect(chooseQuant(files, quant)).toEqual(found);
  });

  it("is looked up among all the repository's files, page by page, and downloaded", async () => {
    const names = ["a.gguf", "b.txt", "tiny-Q2_K.gguf", "tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf"];
    const data = Object.fromEntries(names.map((name, index) => [name, ggufBytes(2000, index + 1)]));
    await using hub = await startHub(data, {}, { pageSize: 2 });
    await using downloads = await startDownloads(hub);
    const model = await downloads.start("hf:acme/tiny:Q8_0");
    expect(model.file).toBe("tiny-Q8_0.gguf");
    expect(model.sha256).toBe(sha256(data["tiny-Q8_0.gguf"] ?? Buffer.alloc(0)));
    expect(hub.requests.filter(({ path }) => path.includes("/tree/"))).toHaveLength(3);
  });

  it("that is not there, not clear or split is told with the names there are", async () => {
    const data = Object.fromEntries(files.map((name, index) => [name, ggufBytes(2000, index + 1)]));
    await using hub = await startHub(data);
    await using downloads = await startDownloads(hub);
    expect(await downloads.fail("hf:acme/tiny:Q1_0")).toMatchObject({
      code: "NotFound",
      message: "The repository has no file of quantisation Q1_0.",
      details: { hint: expect.stringContaining("tiny-Q4_K_M.gguf") },
    });
    expect(await downloads.fail("hf:acme/tiny:BF16")).toMatchObject({
      code: "InvalidParams",
      details: { hint: "Name the file: a-BF16.gguf, b-BF16.gguf" },
    });
    expect(await downloads.fail("hf:acme/tiny:Q6_K")).toMatchObject({
      code: "InvalidParams",
      message: expect.stringContaining("split model"),
    });
    expect(await downloads.fail("hf:acme/other:Q6_K")).toMatchObject({ code: "NotFound" });
    await using empty = await startHub({ "README.md": Buffer.from("x") });
    await using none = await startDownloads(empty);
    expect(await none.fail("hf:acme/tiny:Q6_K")).toMatchObject({
      code: "NotFound",
      details: { hint: "Name the file: the repository has no .gguf file" },
    });
  });

  it("whose name would lead elsewhere is refused", async () => {
    await using hub = await startHub({ "../../evil-Q4_0.gguf": ggufBytes(2000) });
    await using downloads = await startDownloads(hub);
    expect(await downloads.fail("hf:acme/tiny:Q4_0")).toMatchObject({ code: "InvalidParams" });
    expect(hub.ranges()).toEqual([]);
  });
});
