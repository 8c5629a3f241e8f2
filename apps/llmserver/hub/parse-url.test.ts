import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { checkModelFile, parseModelUrl } from "./parse-url.ts";

const refusal = (text: string, endpoint?: string): AppError => {
  try {
    parseModelUrl(text, endpoint);
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  throw new Error(`${text} was taken`);
};

describe("where a model file is", () => {
  const file = { repository: "acme/tiny", revision: "main", file: "tiny.gguf" };

  it.each([
    ["https://huggingface.co/acme/tiny/resolve/main/tiny.gguf", file],
    ["https://huggingface.co/acme/tiny/blob/main/tiny.gguf", file],
    ["  https://HuggingFace.co/acme/tiny/resolve/main/tiny.gguf?download=true \n", file],
    ["https://hf.co/acme/tiny/resolve/main/tiny.gguf", file],
    ["hf:acme/tiny/tiny.gguf", file],
    ["acme/tiny/tiny.gguf", file],
    ["acme/tiny/sub/folder/tiny.gguf", { ...file, file: "sub/folder/tiny.gguf" }],
    [
      "https://huggingface.co/acme/tiny/resolve/v1.0/a/b.gguf",
      { ...file, revision: "v1.0", file: "a/b.gguf" },
    ],
    [
      "https://huggingface.co/acme/tiny/blob/refs%2Fpr%2F1/t.gguf",
      { ...file, revision: "refs/pr/1", file: "t.gguf" },
    ],
    [
      "https://huggingface.co/acme/tiny/resolve/main/my%20model%20(1).gguf",
      { ...file, file: "my model (1).gguf" },
    ],
    ["https://huggingface.co/acme/tiny/resolve/main/mod%C3%A8le.gguf", { ...file, file: "modèle.gguf" }],
    ["hf:acme/tiny:Q4_K_M", { repository: "acme/tiny", revision: "main", quant: "Q4_K_M" }],
    [
      "hf:Acme-1/tiny_2.5-GGUF:UD-Q4_K_XL",
      { repository: "Acme-1/tiny_2.5-GGUF", revision: "main", quant: "UD-Q4_K_XL" },
    ],
  ])("%s", (text, source) => {
    expect(parseModelUrl(text)).toEqual(source);
  });

  it("takes addresses of the hub this server is set to, with a path in front, too", () => {
    const mirror = "http://127.0.0.1:8080/hf";
    expect(parseModelUrl(`${mirror}/acme/tiny/resolve/main/tiny.gguf`, mirror)).toEqual(file);
    expect(parseModelUrl("https://huggingface.co/acme/tiny/resolve/main/tiny.gguf", mirror)).toEqual(file);
    expect(refusal("http://127.0.0.1:8080/acme/tiny/resolve/main/tiny.gguf", mirror).code).toBe(
      "InvalidParams",
    );
    expect(refusal(`${mirror}/acme/tiny/resolve/main/tiny.gguf`).code).toBe("InvalidParams");
  });

  it.each([
    "",
    "tiny.gguf",
    "acme/tiny",
    "hf:acme/tiny",
    "acme/tiny:Q4_K_M",
    "hf:acme/tiny:",
    "hf:acme/tiny:Q4 K",
    "hf:acme/tiny:../x",
    "hf:tiny:Q4_K_M",
    "acme/tiny/readme.md",
    "acme/tiny/tiny.gguf.exe",
    "acme/tiny/.gguf",
    "acme/tiny/../x.gguf",
    "acme/../x/y.gguf",
    "../tiny/x.gguf",
    "acme/tiny//x.gguf",
    "acme/tiny/a\\b.gguf",
    "acme/tiny/a\0b.gguf",
    "acme/tiny/a\nb.gguf",
    "acme/tiny/a\u202eb.gguf",
    "acme/tiny/~x.gguf",
    "acme/tiny/a:b.gguf",
    "acme/ti..ny/x.gguf",
    "acme/ti ny/x.gguf",
    `acme/tiny/${"x".repeat(250)}.gguf`,
    `acme/tiny/${"x/".repeat(600)}x.gguf`,
    "https://huggingface.co/acme/tiny/resolve/main/../../../etc/x.gguf",
    "https://huggingface.co/acme/tiny/resolve/main/%2e%2e/x.gguf",
    "https://huggingface.co/acme/tiny/resolve/main/..%2fx.gguf",
    "https://huggingface.co/acme/tiny/resolve/main/a%2fb.gguf",
    "https://huggingface.co/acme/tiny/resolve/main/a%00b.gguf",
    "https://huggingface.co/acme/tiny/resolve/main/%ff.gguf",
    "https://huggingface.co/acme/tiny/resolve/..%2f..%2fx/x.gguf",
    "https://huggingface.co/acme/tiny/resolve/a%2f%2fb/x.gguf",
    "https://huggingface.co/acme/tiny/resolve/main/",
    "https://huggingface.co/acme/tiny/resolve/main",
    "https://huggingface.co/acme/tiny/raw/main/x.gguf",
    "https://huggingface.co/acme/tiny/resolve/main/x.gguf?token=1",
    "https://huggingface.co/acme/tiny/resolve/main/x.gguf#y",
    "https://huggingface.co/datasets/acme/tiny/resolve/main/x.gguf",
    "https://huggingface.co.evil.example/acme/tiny/resolve/main/x.gguf",
    "https://huggingface.co@evil.example/acme/tiny/resolve/main/x.gguf",
    "https://me:pw@huggingface.co/acme/tiny/resolve/main/x.gguf",
    "https://huggingface.co:8443/acme/tiny/resolve/main/x.gguf",
    "http://huggingface.co/acme/tiny/resolve/main/x.gguf",
    "https://evil.example/acme/tiny/resolve/main/x.gguf",
    "ftp://huggingface.co/acme/tiny/resolve/main/x.gguf",
    "file:///etc/x.gguf",
    "//huggingface.co/acme/x.gguf",
  ])("refuses %j", (text) => {
    const error = refusal(text);
    expect(error.code).toBe("InvalidParams");
    expect(error.details.hint).toMatch(/hf:<owner>\/<repo>/);
  });

  it("refuses parts of a split model, and says so", () => {
    for (const text of [
      "acme/tiny/big-00001-of-00003.gguf",
      "https://huggingface.co/acme/tiny/resolve/main/Q8/big-00002-of-00003.gguf",
    ]) {
      const error = refusal(text);
      expect(error.code).toBe("InvalidParams");
      expect(error.message).toMatch(/split model \(-00001-of-0000N\.gguf\)/);
    }
  });

  it("takes any text, and what it takes can lead nowhere else", () => {
    const piece = fc.oneof(
      fc.constantFrom(
        "acme",
        "tiny",
        "..",
        ".",
        "",
        "x.gguf",
        "%2e%2e",
        "%2F",
        "\\",
        "resolve",
        "main",
        "hf:",
        "/",
      ),
      fc.string({ maxLength: 8 }),
    );
    const anything = fc.tuple(
      fc.constantFrom("", "hf:", "https://huggingface.co/acme/tiny/resolve/main/", "acme/tiny/"),
      fc.array(piece, { maxLength: 8 }),
      fc.constantFrom("/", ""),
      fc.constantFrom("", ".gguf", ":Q4"),
    );
    fc.assert(
      fc.property(anything, ([start, pieces, between, end]) => {
        let source: ReturnType<typeof parseModelUrl>;
        try {
          source = parseModelUrl(`${start}${pieces.join(between)}${end}`);
        } catch (error) {
          expect(error).toMatchObject({ name: "AppError", code: "InvalidParams" });
          return;
        }
        const all = [source.repository, source.revision, "file" in source ? source.file : source.quant];
        for (const part of all.flatMap((text) => text.split("/")))
          expect(part).not.toMatch(/^\.*$|[\\\0\r\n]/);
        if ("file" in source) expect(checkModelFile(source.file)).toBe(source.file);
      }),
      { numRuns: 2000 },
    );
  });
});
