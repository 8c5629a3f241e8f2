import { expect } from "vitest";
import type { Runner } from "#agents";
import { findAgent } from "#agents";
import { usageOf } from "#database/queue/index.ts";
import type { TaskEvent } from "#schemas";
import { AGENT_SCRIPTS, type OUTCOMES, type Round, SAMPLE } from "#tests/support/agent-scripts.ts";
import type { ChatBody, Reply } from "#tests/support/provider-replies.ts";
import type { AgentFeature, AgentScenario } from "./features.ts";
import type { Ended, House } from "./house.ts";

/** How every agent's results are judged, with the scripts of tests/support. */

/** What the six agents ask for that none of them may do. */
const FORBIDDEN: Readonly<Record<string, readonly Reply[]>> = {
  edit: [
    call("write", { filePath: "forbidden.txt", content: "written\n" }),
    call("edit", { filePath: "README.md", oldString: "# Stats", newString: "# Forbidden" }),
  ],
  bash: [call("bash", { command: "touch forbidden.txt src/forbidden.js", description: "Makes files" })],
  webfetch: [call("webfetch", { url: "http://127.0.0.1:1/", format: "text" })],
  task: [call("task", { description: "other", prompt: "Write forbidden.txt.", subagent_type: "general" })],
};

function call(name: string, args: Record<string, unknown>): Reply {
  return { toolCalls: [{ name, arguments: args }] };
}

/** What each runner's tools said of themselves, to be compared. */
export const toolLogs = new Map<string, Partial<Record<Runner, readonly string[]>>>();
/** Which events came one after the other. */
export const eventLogs = new Map<string, Partial<Record<Runner, readonly string[]>>>();

export const results: { readonly [F in AgentFeature]: AgentScenario } = {
  accepted: async (house, runner, agent) => {
    const { task, events, requests, change } = await play(house, runner, agent, "accepted");
    expect(task.error).toBeNull();
    expect(task.state).toBe("completed");
    expect(validations(events)).toMatchObject([{ round: 1, passed: true, problems: [] }]);
    if (agent !== "DesignAgent" && agent !== "DocAgent" && agent !== "SecurityAgent")
      expect(validations(events)[0]?.checks.map(({ passed }) => passed)).toContain(true);
    expect(change).toEqual(changeBy(agent, "accepted"));
    expect(events.filter(({ type }) => type === "findings")).toHaveLength(agent === "SecurityAgent" ? 1 : 0);
    if (agent === "SecurityAgent") {
      const findings = events.flatMap((event) => (event.type === "findings" ? event.findings : []));
      expect(findings).toContainEqual(
        expect.objectContaining({ file: "src/page.js", line: 2, severity: "high", cwe: "CWE-79" }),
      );
    }
    const used = (await usageOf(house.db, [task.id])).get(task.id);
    const sum = (field: "prompt_tokens" | "completion_tokens") =>
      requests.reduce((total, { reported }) => total + (reported?.[field] ?? 0), 0);
    expect(requests.length).toBe(roundsOf(agent, "accepted")[0]?.length);
    expect(used).toMatchObject({
      input_tokens: sum("prompt_tokens"),
      output_tokens: sum("completion_tokens"),
    });
    expect(used?.cost_microcredits).toBeGreaterThan(0);
  },

  repaired: async (house, runner, agent) => {
    const { task, events, requests, change } = await play(house, runner, agent, "repaired");
    expect(task.error).toBeNull();
    const judged = validations(events);
    expect(judged).toMatchObject([
      { round: 1, passed: false },
      { round: 2, passed: true, problems: [] },
    ]);
    expect(judged[0]?.problems.length).toBeGreaterThan(0);
    const second = requests.find(({ body }) => users(body) === 2);
    for (const problem of judged[0]?.problems ?? []) expect(second?.prompt).toContain(problem);
    expect(change).toEqual(changeBy(agent, "repaired"));
    // Findings of the refused round are nobody's.
    expect(events.filter(({ type }) => type === "findings")).toHaveLength(agent === "SecurityAgent" ? 1 : 0);
  },

  refused: async (house, runner, agent) => {
    const { task, events, change } = await play(house, runner, agent, "refused");
    const rounds = 1 + (findAgent(agent)?.repairRounds ?? 0);
    expect(task).toMatchObject({ state: "failed", change_id: null, error: { code: "ResultInvalid" } });
    const judged = validations(events);
    expect(judged.map(({ round, passed }) => [round, passed])).toEqual(
      Array.from({ length: rounds }, (_, nth) => [nth + 1, false]),
    );
    expect(task.error?.message).toContain(judged.at(-1)?.problems[0]);
    expect(change).toEqual({});
    expect(events.filter(({ type }) => type === "findings")).toEqual([]);
  },

  permissions: async (house, runner, agent) => {
    const permission = findAgent(agent)?.setup.permission ?? {};
    const denied = Object.keys(FORBIDDEN).filter((name) => permission[name] === "deny");
    const tries = denied.flatMap((name) => FORBIDDEN[name] ?? []);
    const [good = []] = roundsOf(agent, "accepted");
    const { task, events, requests, change } = await house.run(runner, {
      agent,
      script: [[...tries, ...good]],
    });
    expect(task.error).toBeNull();
    expect(change).toEqual(changeBy(agent, "accepted"));
    const names = tries.flatMap(({ toolCalls = [] }) => toolCalls.map(({ name }) => name));
    const offered = (requests[0]?.body.tools ?? []).map((tool) => tool.function?.name);
    expect(offered.filter((name) => name !== undefined && names.includes(name))).toEqual([]);
    expect(offered).toContain("read");
    const ends = toolEnds(events).slice(0, tries.length);
    expect(ends.map(({ name, status }) => `${name} ${status}`)).toEqual(
      names.map((name) => `${name} failed`),
    );
    for (const { output } of ends) expect(output).toMatch(/^(Not allowed for this agent|There is no tool)/);
  },
};

async function play(
  house: House,
  runner: Runner,
  agent: string,
  outcome: (typeof OUTCOMES)[number],
): Promise<Ended> {
  const ended = await house.run(runner, { agent, script: roundsOf(agent, outcome) });
  const key = `${agent}, ${outcome}`;
  toolLogs.set(key, { ...toolLogs.get(key), [runner]: toolLog(ended.events) });
  eventLogs.set(key, { ...eventLogs.get(key), [runner]: orderOf(ended.events) });
  return ended;
}

function roundsOf(agent: string, outcome: (typeof OUTCOMES)[number]): readonly Round[] {
  const script = AGENT_SCRIPTS[agent];
  if (script === undefined) throw new Error(`there is no script for ${agent}`);
  return script[outcome];
}

/** What a script's tools leave of the sample, where that differs from it. */
function changeBy(agent: string, outcome: (typeof OUTCOMES)[number]): Record<string, string> {
  const files: Record<string, string> = { ...SAMPLE };
  for (const { name, arguments: given } of roundsOf(agent, outcome)
    .flat()
    .flatMap(({ toolCalls = [] }) => toolCalls)) {
    const path = String(given.filePath);
    if (name === "write") files[path] = String(given.content);
    if (name === "edit")
      files[path] = (files[path] ?? "").replace(String(given.oldString), () => String(given.newString));
  }
  return Object.fromEntries(Object.entries(files).filter(([path, text]) => SAMPLE[path] !== text));
}

const users = ({ messages = [] }: ChatBody) => messages.filter(({ role }) => role === "user").length;

function validations(events: readonly TaskEvent[]) {
  return events.flatMap((event) => (event.type === "validation" ? [event] : []));
}

type ToolEvent = Extract<TaskEvent, { type: "tool" }>;

function toolEnds(events: readonly TaskEvent[]): ToolEvent[] {
  return events.flatMap((event) =>
    event.type === "tool" && (event.status === "completed" || event.status === "failed") ? [event] : [],
  );
}

/** Each call in order: its name, what became of it, its title in the end. */
function toolLog(events: readonly TaskEvent[]): string[] {
  const calls = new Map<string, { name: string; statuses: string[]; title: string }>();
  for (const event of events) {
    if (event.type !== "tool") continue;
    const { call_id, name, status, title = "" } = event;
    const call = calls.get(call_id) ?? { name, statuses: [], title };
    // opencode tells of a call before its arguments are there, our own loop does not.
    if (status !== "pending" && call.statuses.at(-1) !== status) call.statuses.push(status);
    calls.set(call_id, { ...call, title });
  }
  return [...calls.values()].map(({ name, statuses, title }) => `${name} ${statuses.join(" ")}: ${title}`);
}

/** Types of events in order, neighbours of one type and reports of state once. */
function orderOf(events: readonly TaskEvent[]): string[] {
  const types = events.map((event) => (event.type === "tool" ? `tool ${event.status}` : event.type));
  return types.filter((type, index) => type !== "tool pending" && type !== types[index - 1]);
}
