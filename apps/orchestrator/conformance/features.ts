import type { Runner } from "#agents";
import type { House } from "./house.ts";

/**
 * What is asked of every agent, whatever drives it. `agents.test.ts` beside this loops over runners, agents and
 * features, and writes the table of docs/agents.md from what it found.
 */
export const AGENT_FEATURES = {
  accepted: "a good result is tried out and proposed; it costs what the provider counted",
  repaired: "a refused result goes back with what is wrong, and what was mended is proposed",
  refused: "a result that is never right fails, with the reason and without a change",
  permissions: "what it may not do is not offered, and does nothing when called all the same",
} as const;

/** What is asked of every runner. */
export const RUNNER_FEATURES = {
  history: "a session goes on, and knows what was asked and answered before",
  editor: "it is told what the user looks at, and what is selected there",
  repository: "the project's configuration for agents' programs does nothing; its AGENTS.md allows nothing",
  network: "no network that was not granted",
  queue: "cancelled while it waits in the queue",
  starting: "cancelled while it starts",
  asking: "cancelled while the model answers",
  working: "cancelled while a tool runs",
  validating: "cancelled while its result is tried out",
  pause: "paused before its next question to the model, and resumed",
  brokenOff: "a model that breaks off fails it with the provider's failure",
  silence: "a model that falls silent fails it with a time-out",
  cutOff: "an answer cut off at its limit is none",
  comesBack: "a provider that fails once before it answers is asked again",
  ceiling: "it ends when its budget is used up, which is never passed",
  plan: "steps of a plan build on each other; what two made side by side is merged",
  planner: "an agent that may make a plan hands on steps, and they are done",
} as const;

export type AgentFeature = keyof typeof AGENT_FEATURES;
export type RunnerFeature = keyof typeof RUNNER_FEATURES;

/** How a feature is shown: it throws where it is missing. */
export type RunnerScenario = (house: House, runner: Runner) => Promise<void>;
export type AgentScenario = (house: House, runner: Runner, agent: string) => Promise<void>;
