import { describe, expect, it } from "vitest";
import { agents, findAgent, RUNNERS } from "#agents";

describe("agents", () => {
  it("are named once each, and found by that name only", () => {
    expect(new Set(agents.map((agent) => agent.name)).size).toBe(agents.length);
    expect(findAgent("CodeAgent")?.name).toBe("CodeAgent");
    expect(findAgent("codeagent")).toBeUndefined();
    expect(findAgent("__proto__")).toBeUndefined();
  });

  it("never wait for a person: every permission is decided", () => {
    for (const agent of agents) {
      const decided = Object.values(agent.setup.permission);
      expect(decided.filter((value) => value !== "allow" && value !== "deny")).toEqual([]);
    }
  });

  it("can be driven by every runner, the default first", () => {
    for (const agent of agents) expect(agent.runners).toEqual(RUNNERS);
  });

  it("do not leave their sandbox", () => {
    const outward = ["webfetch", "websearch", "external_directory", "question", "task", "skill"];
    for (const { setup } of agents) {
      expect(outward.filter((name) => setup.permission[name] !== "deny")).toEqual([]);
    }
  });
});
