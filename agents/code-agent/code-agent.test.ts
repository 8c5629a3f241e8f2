import { describe, expect, it } from "vitest";
import { agents, findAgent, type ProposedChange } from "#agents";
import { agentMethods, runnerSchema } from "#schemas";

const bytes = (text: string) => new TextEncoder().encode(text);
const change = (
  files: [path: string, before: string | null, after: string | null][],
  answer = "Done.",
): ProposedChange => ({
  answer,
  files: files.map(([path, before, after]) => ({
    path,
    before: before === null ? null : bytes(before),
    after: after === null ? null : bytes(after),
  })),
});
const CONFLICT = "a\n<<<<<<< ours\nb\n=======\nc\n>>>>>>> theirs\n";

describe("agents", () => {
  it("are named once each, and found by that name only", () => {
    expect(new Set(agents.map((agent) => agent.name)).size).toBe(agents.length);
    expect(findAgent("CodeAgent")?.name).toBe("CodeAgent");
    expect(findAgent("codeagent")).toBeUndefined();
    expect(findAgent("__proto__")).toBeUndefined();
  });

  it("[AG-3] fit what agent.list answers", () => {
    const listed = agents.map(({ name, description, runners }) => ({ name, description, runners }));
    expect(agentMethods["agent.list"].result.safeParse({ agents: listed }).success).toBe(true);
    expect(
      agents.flatMap((agent) => agent.runners).every((name) => runnerSchema.safeParse(name).success),
    ).toBe(true);
  });

  it("never wait for a person: every permission is decided", () => {
    for (const agent of agents) {
      expect(
        Object.values(agent.setup.permission).every((value) => value === "allow" || value === "deny"),
      ).toBe(true);
    }
  });
});

describe("CodeAgent's result", () => {
  const problems = (value: ProposedChange) => findAgent("CodeAgent")?.validate(value);

  it("may be a change, a deletion, or just an answer", () => {
    expect(problems(change([["a.js", null, "export {};\n"]]))).toEqual([]);
    expect(problems(change([["a.js", "x", null]], ""))).toEqual([]);
    expect(problems(change([]))).toEqual([]);
  });

  it("is none when nothing was changed or said", () => {
    expect(problems(change([], " \n"))).toEqual(["The agent neither changed a file nor answered."]);
  });

  it("is refused with conflict markers that were not there before", () => {
    expect(problems(change([["a.js", "a\n", CONFLICT]]))).toEqual([
      "a.js: conflict markers were left in it.",
    ]);
    expect(problems(change([["a.js", null, CONFLICT.replaceAll("\n", "\r\n")]]))).toHaveLength(1);
    expect(problems(change([["a.js", CONFLICT, `${CONFLICT}more\n`]]))).toEqual([]);
    expect(problems(change([["a.md", null, "Title\n=======\ntext\n"]]))).toEqual([]);
  });

  it("is refused below .git, whatever its case, and nowhere else", () => {
    expect(problems(change([[".git/hooks/pre-commit", null, "x"]]))).toHaveLength(1);
    expect(problems(change([["sub/.GIT/config", "x", null]]))).toHaveLength(1);
    expect(problems(change([[".gitignore", null, "x"]]))).toEqual([]);
  });

  it("is refused when it breaks a manifest that was whole", () => {
    expect(problems(change([["package.json", "{}", "{,}"]]))).toEqual([
      "package.json: is not valid JSON any more.",
    ]);
    expect(problems(change([["package.json", "{,}", "{,,}"]]))).toEqual([]);
    expect(problems(change([["tsconfig.json", "{}", "{} // note"]]))).toEqual([]);
  });

  it("leaves binary and huge files alone, and says no more than a person reads", () => {
    const binary: ProposedChange = {
      answer: "",
      files: [
        { path: "package.json", before: null, after: new Uint8Array([0xff, 0xfe, 0x00]) },
        { path: "big.txt", before: null, after: new Uint8Array(3 * 1024 * 1024).fill(60) },
      ],
    };
    expect(problems(binary)).toEqual([]);
    const many = change(Array.from({ length: 50 }, (_, i) => [`f${i}`, null, CONFLICT]));
    expect(problems(many)).toHaveLength(20);
  });
});
