import { describe, expect, it } from "vitest";
import { MemoryHost } from "../testing/memory-host.ts";
import { GlobMatcher } from "./glob-match.ts";
import { tools, toolsFor } from "./index.ts";

const signal = new AbortController().signal;

function use(host: MemoryHost, name: string, fields: unknown, outputChars = 10_000): Promise<string> {
  const tool = tools.find((one) => one.name === name);
  if (tool === undefined) throw new Error(`no tool ${name}`);
  return tool.prepare(fields, host.directory).run({ host, signal, outputChars });
}

describe("tools", () => {
  it("have opencode's names and fields, as JSON schemas", () => {
    const fields = (name: string) =>
      Object.keys(tools.find((tool) => tool.name === name)?.spec.parameters.properties ?? {});
    expect(tools.map((tool) => tool.name)).toEqual(["read", "write", "edit", "bash", "grep", "glob", "list"]);
    expect(fields("read")).toEqual(["filePath", "offset", "limit"]);
    expect(fields("write")).toEqual(["filePath", "content"]);
    expect(fields("edit")).toEqual(["filePath", "oldString", "newString", "replaceAll"]);
    expect(fields("bash")).toEqual(["command", "timeout", "description"]);
    expect(fields("grep")).toEqual(["pattern", "path", "include"]);
    expect(tools.find((tool) => tool.name === "edit")?.spec.parameters).toMatchObject({
      type: "object",
      required: ["filePath", "oldString", "newString"],
      properties: { replaceAll: { type: "boolean" } },
    });
  });

  it("are left out when an agent may not use them", () => {
    const names = (permission: Record<string, "allow" | "deny">) =>
      toolsFor(permission).map((tool) => tool.name);
    expect(names({ edit: "deny", bash: "deny" })).toEqual(["read", "grep", "glob", "list"]);
    expect(names({ "*": "deny", read: "allow" })).toEqual(["read"]);
    expect(names({})).toHaveLength(tools.length);
  });

  it("take paths below the working directory only, however they are written", async () => {
    const host = new MemoryHost({ "src/a.txt": "one\n" });
    for (const filePath of ["src/a.txt", "./src//a.txt", "src/../src/a.txt", `${host.directory}/src/a.txt`]) {
      expect(await use(host, "read", { filePath })).toBe("1\tone");
    }
    for (const filePath of [
      "/etc/passwd",
      "../a",
      "src/../../a",
      `${host.directory}/../prompts/prompt.md`,
      `${host.directory}x/a`,
    ]) {
      for (const [name, more] of [
        ["read", {}],
        ["write", { content: "x" }],
        ["edit", { oldString: "a", newString: "b" }],
      ] as const) {
        await expect(use(host, name, { filePath, ...more })).rejects.toThrow(
          "lies outside the working directory",
        );
      }
      await expect(use(host, "list", { path: filePath })).rejects.toThrow("outside");
      await expect(use(host, "grep", { pattern: "x", path: filePath })).rejects.toThrow("outside");
      await expect(use(host, "glob", { pattern: "x", path: filePath })).rejects.toThrow("outside");
    }
    expect(host.commands).toEqual([]);
    expect([...host.files.keys()]).toEqual(["src/a.txt"]);
  });

  it("say which field is wrong", () => {
    const host = new MemoryHost();
    expect(() => use(host, "read", { path: "a" })).toThrow(/arguments of read are wrong.*filePath/);
    expect(() => use(host, "bash", "ls")).toThrow("arguments of bash are wrong");
    expect(() => use(host, "read", { filePath: "a", offset: 0 })).toThrow("offset");
  });

  it("read shows parts of a file and how to go on", async () => {
    const lines = Array.from({ length: 3000 }, (_, index) => `line ${index + 1}`);
    const host = new MemoryHost({
      long: lines.join("\n"),
      empty: "",
      wide: "x".repeat(5000),
      crlf: "a\r\nb\r\n",
      bin: "a\0b",
    });
    const first = await use(host, "read", { filePath: "long" }, 1_000_000);
    expect(first).toMatch(/^1\tline 1\n/);
    expect(first).toMatch(/\n2000\tline 2000\n\(Lines 1-2000 of 3000\. Go on with offset 2001\.\)$/);
    expect(await use(host, "read", { filePath: "long", offset: "2999", limit: null })).toMatch(
      /^2999\tline 2999\n3000\tline 3000\n\(Lines 2999-3000 of 3000: the end of the file\.\)$/,
    );
    const bounded = await use(host, "read", { filePath: "long" }, 1000);
    expect(bounded.length).toBeLessThanOrEqual(1000);
    expect(bounded).toMatch(/Go on with offset \d+/);
    expect(await use(host, "read", { filePath: "empty" })).toBe("(The file is empty.)");
    expect(await use(host, "read", { filePath: "wide" })).toContain("… (3000 characters more)");
    expect(await use(host, "read", { filePath: "crlf" })).toBe("1\ta\n2\tb");
    await expect(use(host, "read", { filePath: "bin" })).rejects.toThrow("is no text (3 bytes)");
    await expect(use(host, "read", { filePath: "long", offset: 4000 })).rejects.toThrow(
      "has only 3000 lines",
    );
  });

  it("write and edit change what they are told to, and keep a byte order mark", async () => {
    const host = new MemoryHost({ "bom.txt": "\u{feff}one two\n" });
    expect(await use(host, "write", { filePath: "new/ä.txt", content: "ä\n" })).toBe(
      "Wrote new/ä.txt: 3 bytes.",
    );
    expect(host.text("new/ä.txt")).toBe("ä\n");
    await use(host, "edit", { filePath: "bom.txt", oldString: "two", newString: "$& $1" });
    expect(host.text("bom.txt")).toBe("\u{feff}one $& $1\n");
    await expect(use(host, "edit", { filePath: "gone", oldString: "a", newString: "b" })).rejects.toThrow(
      "There is no gone",
    );
  });

  it("bash tells how a command ended, and how to see what was cut", async () => {
    const host = new MemoryHost();
    host.onExec = async (command) =>
      command === "big" ? { output: "x".repeat(5000), truncated: true } : { code: 2, output: "no\n" };
    expect(await use(host, "bash", { command: "false" })).toBe("no\n(Exit code 2.)");
    expect(await use(host, "bash", { command: "big" })).toContain(
      "(The output was cut; run it again with head",
    );
    host.onExec = async (_, { timeoutMs }) => ({ timedOut: timeoutMs === 50, code: null });
    expect(await use(host, "bash", { command: "sleep 9", timeout: 50 })).toBe(
      "(The command was ended after 50 ms.)",
    );
    host.onExec = async () => ({});
    expect(await use(host, "bash", { command: "true" })).toBe("(No output.)");
  });

  it("list marks directories, and is bounded", async () => {
    const host = new MemoryHost({ "b.txt": "", "a/c.txt": "" });
    expect(await use(host, "list", {})).toBe("a/\nb.txt");
    expect(await use(host, "list", { path: "a" })).toBe("c.txt");
    const many = new MemoryHost(Object.fromEntries(Array.from({ length: 900 }, (_, i) => [`f${i}`, ""])));
    const listed = await use(many, "list", {}, 2000);
    expect(listed.length).toBeLessThanOrEqual(2000);
    expect(listed).toMatch(/\(\d+ of 900 are shown\./);
  });

  it("glob finds paths by pattern", async () => {
    const host = new MemoryHost({ "a.ts": "", "src/b.ts": "", "src/deep/c.tsx": "", "src/d.js": "" });
    expect(await use(host, "glob", { pattern: "*.ts" })).toBe("a.ts\nsrc/b.ts");
    expect(await use(host, "glob", { pattern: "src/**" })).toBe("src/b.ts\nsrc/d.js\nsrc/deep/c.tsx");
    expect(await use(host, "glob", { pattern: "**/*.{tsx,js}", path: "src" })).toBe(
      "src/d.js\nsrc/deep/c.tsx",
    );
    expect(await use(host, "glob", { pattern: `${host.directory}/src/*.js` })).toBe("src/d.js");
    expect(await use(host, "glob", { pattern: "*.py" })).toBe("No file matches.");
  });
});

describe("glob patterns", () => {
  const matches = (pattern: string, path: string) => new GlobMatcher(pattern, 100_000).matches(path);

  it.each([
    ["*", "a", true],
    ["*.ts", "deep/er/a.ts", true],
    ["src/*.ts", "src/a.ts", true],
    ["src/*.ts", "src/x/a.ts", false],
    ["src/**/a.ts", "src/a.ts", true],
    ["src/**/a.ts", "src/x/y/a.ts", true],
    ["**/x/**/a.ts", "x/y/x/a.ts", true],
    ["src/**", "src", false],
    ["a?c", "abc", true],
    ["a?c", "ac", false],
    ["[a-c]x", "bx", true],
    ["[!a-c]x", "bx", false],
    ["\\*x", "*x", true],
    ["\\*x", "ax", false],
    ["{a,b{c,d}}.js", "bd.js", true],
    ["{a,b{c,d}}.js", "b.js", false],
    ["{open", "{open", true],
    ["a.b", "axb", false],
    ["*a*b*c", "xxaxxbxxc", true],
  ])("%s against %s: %s", (pattern, path, expected) => {
    expect(matches(pattern, path)).toBe(expected);
  });

  it("take no more steps than they are given", () => {
    const matcher = new GlobMatcher(`${"*a".repeat(50)}b`, 100);
    expect(() => matcher.matches("a".repeat(200))).toThrow(RangeError);
    expect(matches(`${"*a".repeat(50)}b`, "a".repeat(200))).toBe(false);
    expect(matches("{a,b}".repeat(40), "c".repeat(40))).toBe(false);
  });
});
