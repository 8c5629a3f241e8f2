import { posix } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { directoriesAbove, normalizeDirectory, normalizePath, rangeBelow, showPath } from "./paths.ts";

const refusal = (path: string): string => {
  try {
    return `accepted as ${JSON.stringify(normalizePath(path))}`;
  } catch (error) {
    if (error instanceof AppError && error.code === "InvalidParams") return error.message;
    throw error;
  }
};

describe("paths", () => {
  it.each([
    ["src/a.js", "src/a.js"],
    ["a//b///c", "a/b/c"],
    ["./a/./b/", "a/b"],
    ["...", "..."],
    ["..a/b..", "..a/b.."],
    [".gitignore", ".gitignore"],
    [".github/workflows/x.yml", ".github/workflows/x.yml"],
    ["a b/ä ö.md", "a b/ä ö.md"],
    ["c:notes.txt", "c:notes.txt"],
    ["u\u0308ber.txt", "\u00fcber.txt"],
    ["日本/🚀.txt", "日本/🚀.txt"],
  ])("[SB-fs] takes %j as %j", (path, normal) => {
    expect(normalizePath(path)).toBe(normal);
  });

  it.each([
    ["", "names no file"],
    [".", "names no file"],
    ["./", "names no file"],
    ["..", 'by ".."'],
    ["a/../b", 'by ".."'],
    ["a/..", 'by ".."'],
    ["/etc/passwd", "is absolute"],
    ["//server/share", "is absolute"],
    ["C:/Windows", "is absolute"],
    ["C:\\Windows", "backslash"],
    ["..\\..\\etc", "backslash"],
    ["a\\b", "backslash"],
    ["a\0b", "control characters"],
    ["a\nb", "control characters"],
    ["a\u007fb", "control characters"],
    ["a\u0085b", "control characters"],
    [".git/hooks/post-checkout", '".git"'],
    ["sub/.GIT/config", '".git"'],
    [".git. /config", '".git"'],
    // As Windows and macOS read them.
    ["git~1/config", '".git"'],
    [".git::$INDEX_ALLOCATION/config", '".git"'],
    [".g\u200cit/config", '".git"'],
    ["\ud800", "not valid Unicode"],
    ["x".repeat(256), "longer than 255 bytes"],
    ["ä".repeat(128), "longer than 255 bytes"],
    [Array(300).fill("abcd").join("/"), "longer than 1024 bytes"],
  ])("[SB-fs] refuses %j", (path, why) => {
    const message = refusal(path);
    expect(message).toContain(why);
    expect(message).toContain("The path ");
  });

  it("[SB-fs] whatever is accepted stays inside, is normal already, and keeps its characters", () => {
    const names = fc.oneof(
      fc.constantFrom(
        "..",
        ".",
        "",
        ".git",
        ".GIT ",
        "~",
        "C:",
        "a",
        "b c",
        "ü",
        "u\u0308",
        "\\",
        "\0",
        "%2e%2e",
      ),
      fc.string({ unit: "binary", maxLength: 6 }),
    );
    const paths = fc.array(names, { maxLength: 6 }).map((parts) => parts.join("/"));
    fc.assert(
      fc.property(paths, (path) => {
        let normal: string;
        try {
          normal = normalizePath(path);
        } catch (error) {
          return error instanceof AppError && error.code === "InvalidParams";
        }
        const absolute = posix.resolve("/root/project", normal);
        expect(absolute.startsWith("/root/project/")).toBe(true);
        expect(posix.relative("/root/project", absolute)).toBe(normal);
        expect(normalizePath(normal)).toBe(normal);
        expect(normal.split("/").some((name) => name.toLowerCase() === ".git")).toBe(false);
        return true;
      }),
      { numRuns: 3000 },
    );
  });

  it("the root is a directory, not a file", () => {
    expect(["", ".", "./", "./."].map(normalizeDirectory)).toEqual(["", "", "", ""]);
    expect(normalizeDirectory("src/")).toBe("src");
    expect(rangeBelow("")).toBeNull();
  });

  it("a directory's range holds exactly what lies below it, in byte order", () => {
    const range = rangeBelow("src");
    const below = (path: string) => range !== null && path >= range.from && path < range.to;
    expect(["src/a", "src/a/b", "src/~"].every(below)).toBe(true);
    expect(["src", "src-2/a", "src.js", "src0", "srd"].some(below)).toBe(false);
  });

  it("names the directories above a path", () => {
    expect(directoriesAbove("a/b/c")).toEqual(["a", "a/b"]);
    expect(directoriesAbove("a")).toEqual([]);
  });

  it("shows paths quoted, without control characters, not endless", () => {
    expect(showPath('a"b\n\u0085')).toBe('"a\\"b\\n\\u0085"');
    expect(showPath("x".repeat(500)).length).toBeLessThan(130);
  });
});
