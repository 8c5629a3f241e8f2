import { describe, expect, it } from "vitest";
import { IgnoreRules, isAgentConfiguration, isNeverKept } from "./ignored.ts";

describe("what a result leaves out", () => {
  it("follows .gitignore files as git does, the deepest deciding", () => {
    const rules = new IgnoreRules();
    expect(rules.ignores("a.log", "file")).toBe(false);
    rules.add(".gitignore", "*.log\n/dist/\nbuild\n");
    rules.add("sub/.gitignore", "!keep.log\n/only-here\n");
    const ignored = ["a.log", "x/y/a.log", "dist/a.js", "build/a", "sub/b.log", "sub/only-here"];
    expect(ignored.filter((path) => !rules.ignores(path, "file"))).toEqual([]);
    const kept = ["a.js", "x/dist/a.js", "sub/keep.log", "only-here", "sub/x/only-here"];
    expect(kept.filter((path) => rules.ignores(path, "file"))).toEqual([]);
    expect(rules.ignores("dist", "directory")).toBe(true);
    expect(rules.ignores("dist", "file")).toBe(false);
  });

  it("knows agents' configuration and directories no project keeps", () => {
    const configuration = [
      ".opencode/plugin/x.js",
      ".opencode",
      "opencode.json",
      "opencode.jsonc",
      ".claude/a",
    ];
    expect(configuration.filter((path) => !isAgentConfiguration(path))).toEqual([]);
    const none = ["AGENTS.md", "src/opencode.json", "my.opencode/x", ".opencoder/x", "opencode.json/x.txt"];
    expect(none.filter(isAgentConfiguration)).toEqual([]);
    expect(isNeverKept("a/b/node_modules")).toBe(true);
    expect(isNeverKept("a/b/modules")).toBe(false);
  });
});
