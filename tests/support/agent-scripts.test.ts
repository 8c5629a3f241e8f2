import { describe, expect, it } from "vitest";
import { agents } from "#agents";
import { AGENT_SCRIPTS, OUTCOMES, type Round, SAMPLE, scriptedReply } from "./agent-scripts.ts";
import { TestChange } from "./check-trees.ts";
import type { ChatBody } from "./provider-replies.ts";

/** What the tools of a round leave of the files, and the last words. */
function play(files: Record<string, string>, round: Round): string {
  for (const { toolCalls = [] } of round) {
    for (const { name, arguments: given } of toolCalls) {
      const path = String(given.filePath);
      if (name === "write") files[path] = String(given.content);
      if (name === "read") expect(files).toHaveProperty([path]);
      if (name !== "edit") continue;
      const parts = (files[path] ?? "").split(String(given.oldString));
      expect(parts).toHaveLength(2);
      files[path] = parts.join(String(given.newString));
    }
  }
  return String(round.at(-1)?.text);
}

describe("the agents' scripts", () => {
  it("are there for every agent, with tools that it has", () => {
    expect(Object.keys(AGENT_SCRIPTS)).toEqual(agents.map((agent) => agent.name));
    for (const { name, setup } of agents) {
      const script = AGENT_SCRIPTS[name];
      const calls = OUTCOMES.flatMap((outcome) => script?.[outcome] ?? [])
        .flat()
        .flatMap((reply) => reply.toolCalls ?? []);
      const permissions = calls.map((call) => (call.name === "write" ? "edit" : call.name));
      expect(permissions.filter((each) => setup.permission[each] === "deny")).toEqual([]);
    }
  });

  it.each(agents.flatMap(({ name }) => OUTCOMES.map((outcome) => [name, outcome] as const)))(
    "%s: a result that is %s, by its own rules",
    async (name, outcome) => {
      const agent = agents.find((each) => each.name === name);
      const rounds = AGENT_SCRIPTS[name]?.[outcome] ?? [];
      const files = { ...SAMPLE };
      const refused: boolean[] = [];
      for (let round = 0; round <= (agent?.repairRounds ?? 0) && refused.at(-1) !== false; round += 1) {
        const answer = play(files, rounds[Math.min(round, rounds.length - 1)] ?? []);
        const changed = Object.entries(files).filter(([path, content]) => SAMPLE[path] !== content);
        using change = new TestChange(SAMPLE, Object.fromEntries(changed), answer);
        const verdict = await agent?.validate(change.change, change);
        refused.push(verdict?.problems.length !== 0);
        expect(verdict?.findings !== undefined).toBe(name === "SecurityAgent" && refused.at(-1) === false);
      }
      const expected = { accepted: [false], repaired: [true, false], refused: [true, true, true] };
      expect(refused).toEqual(expected[outcome]);
    },
  );

  it("answer each request from what it holds", () => {
    const reply = scriptedReply(AGENT_SCRIPTS.CodeAgent?.repaired ?? []);
    const heard = (...roles: string[]): ChatBody => ({
      messages: roles.map((role) => ({ role, content: "" })),
    });
    expect(reply(heard("system", "user")).toolCalls?.[0]?.name).toBe("write");
    expect(reply(heard("system", "user", "assistant", "tool")).text).toBe("I added `median`.");
    const second = ["system", "user", "assistant", "tool", "assistant", "user"];
    expect(reply(heard(...second)).toolCalls?.[0]?.name).toBe("read");
    expect(reply(heard(...second, "assistant", "tool", "assistant", "tool")).text).toBe("I mended `median`.");
    expect(
      reply(heard(...second, "assistant", "tool", "assistant", "tool", "assistant", "user")).toolCalls,
    ).toHaveLength(1);
  });
});
