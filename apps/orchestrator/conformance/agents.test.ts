import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { agents, RUNNERS, type Runner } from "#agents";
import { OUTCOMES } from "#tests/support/agent-scripts.ts";
import { cancelling } from "./cancelling.ts";
import { failures } from "./failures.ts";
import {
  AGENT_FEATURES,
  type AgentFeature,
  RUNNER_FEATURES,
  type RunnerFeature,
  type RunnerScenario,
} from "./features.ts";
import { House } from "./house.ts";
import { checkInvariants, leftOver } from "./invariants.ts";
import { eventLogs, results, toolLogs } from "./results.ts";
import { sessions } from "./sessions.ts";

const scenarios: { readonly [F in RunnerFeature]: RunnerScenario } = {
  ...sessions,
  ...cancelling,
  ...failures,
};
const agentFeatures = Object.keys(AGENT_FEATURES) as AgentFeature[];
const runnerFeatures = Object.keys(RUNNER_FEATURES) as RunnerFeature[];
const names = agents.map(({ name }) => name);

/** What the run found: `feature` of a runner, and of which agents where it is asked of each. */
const found = new Map<string, Set<string>>();
const note = (feature: string, runner: Runner, shown: string) => {
  const key = `${feature} ${runner}`;
  found.set(key, (found.get(key) ?? new Set()).add(shown));
};

vi.setConfig({ testTimeout: 180_000 });
let house: House;
let closed = false;
beforeAll(async () => {
  house = await House.open();
});
afterAll(async () => {
  if (!closed) await house?.[Symbol.asyncDispose]();
});
afterEach(async () => {
  if (!closed) await checkInvariants(house);
});

describe.each(RUNNERS)("[AG-1] [TE-2] the %s runner", (runner) => {
  describe.each(names)("with %s", (agent) => {
    it.each(agentFeatures)("%s", async (feature) => {
      await results[feature](house, runner, agent);
      note(feature, runner, agent);
    });
  });

  it.each(runnerFeatures)("%s", async (feature) => {
    await scenarios[feature](house, runner);
    note(feature, runner, "shown");
  });
});

describe("[AG-1] both runners", () => {
  const by = (logs: typeof toolLogs, runner: Runner) =>
    Object.fromEntries([...logs].map(([name, each]) => [name, each[runner]]));

  it("have the same tools, which tell the same of the same calls", () => {
    expect(toolLogs.size).toBe(names.length * OUTCOMES.length);
    expect(by(toolLogs, "opencode")).toEqual(by(toolLogs, "native"));
  });

  it("tell what happens in the same order", () => {
    expect(by(eventLogs, "opencode")).toEqual(by(eventLogs, "native"));
  });
});

it("[MU-6] nothing is left on the machine after the end", async () => {
  const { dataDir } = house.llm.config;
  await house[Symbol.asyncDispose]();
  closed = true;
  expect(await leftOver(dataDir)).toEqual([]);
});

const GUIDE = fileURLToPath(new URL("../../../docs/agents.md", import.meta.url));
const [BEGIN, END] = ["<!-- conformance: begin -->", "<!-- conformance: end -->"];

function table(): string {
  const cell = (feature: string, runner: Runner, wanted: number) => {
    const shown = found.get(`${feature} ${runner}`)?.size ?? 0;
    if (shown === wanted) return wanted === 1 ? "yes" : `${shown} of ${wanted} agents`;
    return "not shown";
  };
  const rows = (features: Readonly<Record<string, string>>, wanted: number) =>
    Object.entries(features).map(
      ([feature, text]) =>
        `| ${text} | ${RUNNERS.map((runner) => cell(feature, runner, wanted)).join(" | ")} |`,
    );
  const head = `| | ${RUNNERS.join(" | ")} |\n|---|${RUNNERS.map(() => "---|").join("")}`;
  return [head, ...rows(AGENT_FEATURES, names.length), ...rows(RUNNER_FEATURES, 1)].join("\n");
}

it("docs/agents.md has the table that this run found", () => {
  const guide = readFileSync(GUIDE, "utf8");
  const [before, after] = [guide.indexOf(BEGIN) + BEGIN.length, guide.indexOf(END)];
  if (process.env.CDS_WRITE_PARITY !== undefined) {
    writeFileSync(GUIDE, `${guide.slice(0, before)}\n${table()}\n${guide.slice(after)}`);
  } else expect(guide.slice(before, after).trim()).toBe(table().trim());
});
