import { describe, expect, it } from "vitest";
import { agents, PLAN_PROMPT, parsePlan } from "#agents";

const step = (id: string, ...after: string[]) => ({ id, agent: "CodeAgent", prompt: "Do it.", after });
const answer = (plan: unknown) => `I split it.\n\n\`\`\`plan\n${JSON.stringify(plan)}\n\`\`\`\n`;
const problems = (plan: unknown) => parsePlan(answer(plan)).problems.join("\n");

describe("parsePlan", () => {
  it("takes steps that can all come to their turn", () => {
    const plan = [step("c", "a", "b"), step("a"), step("b", "a")];
    expect(parsePlan(answer(plan))).toEqual({ steps: plan, problems: [] });
    const short = [{ id: "a", agent: "TestAgent", prompt: "x" }];
    expect(parsePlan(answer(short)).steps).toEqual(short);
  });

  it("finds none where there is none", () => {
    for (const text of ["", "I did it.", "```json\n[]\n```", "```plan\n[]"]) {
      expect(parsePlan(text)).toEqual({ steps: [], problems: [] });
    }
  });

  it("refuses what is no plan", () => {
    expect(parsePlan("```plan\n[{]\n```").problems).toHaveLength(1);
    expect(problems({})).toContain("must be a JSON list");
    expect(parsePlan(answer([step("a")]) + answer([step("b")])).problems[0]).toContain("found: 2");
    expect(problems(Array.from({ length: 21 }, (_, i) => step(`s${i}`)))).toContain("20 are the most");
    expect(problems([step("a"), { ...step("b"), prompt: "" }])).toMatch(
      /^Step 2 of the plan does not fit: prompt: /,
    );
    expect(problems([null])).toContain("Step 1 of the plan does not fit");
  });

  it("leaves model, runner and priority to the user", () => {
    for (const field of ["model", "runner", "priority"]) {
      expect(problems([{ ...step("a"), [field]: "native" }])).toContain("does not fit");
    }
  });

  it("refuses names that are not there, or twice, and circles", () => {
    expect(problems([{ ...step("a"), agent: "Nobody" }])).toBe(
      'Step "a" of the plan names no agent: "Nobody".',
    );
    expect(problems([step("a"), step("a")])).toContain('two steps "a"');
    expect(problems([step("a", "x")])).toContain('comes after no step: "x"');
    expect(problems([step("a", "a")])).toContain("wait for each other");
    expect(problems([step("a"), step("b", "a", "d"), step("c", "b"), step("d", "c")])).toBe(
      'Steps of the plan wait for each other: "b", "c", "d".',
    );
  });

  it("is asked for by words that name every agent and hold a plan of their own", () => {
    for (const { name } of agents) expect(PLAN_PROMPT).toContain(name);
    expect(parsePlan(PLAN_PROMPT)).toMatchObject({ problems: [], steps: [{ id: "code" }, { id: "tests" }] });
  });
});
