import OpenAI from "openai";
import { expect } from "vitest";
import type { RecordedRequest } from "../support/provider-replies.ts";

/** One parameter (or value of one) of one route, and what becomes of it on a local model and at a remote provider. */

export type Outcome =
  /** It does what OpenAI says it does; the feature's check has seen it. */
  | "yes"
  /** It reaches the provider as it came: what it does there is theirs. */
  | "passed on"
  /** It is accepted and changes nothing. */
  | "no effect"
  /** 400 with `param` naming it. */
  | "refused";

export type Where = "local" | "remote";

export interface Target {
  where: Where;
  client: OpenAI;
  /** The model that answers, and the one that embeds. */
  model: string;
  embedder: string;
  /** What the provider was asked last; only remote. */
  lastRequest(): RecordedRequest | undefined;
}

export interface Feature {
  endpoint: string;
  /** As it is shown in the table. */
  name: string;
  outcome: Readonly<Record<Where, Outcome>>;
  /** The body's own part; sent with the endpoint's least body. */
  body: Record<string, unknown>;
  /** Names the parameter in a refusal; default: the first key of `body`. */
  param?: string;
  /** Looks at the answer where the outcome is "yes". */
  check?: (answer: never, target: Target) => void | Promise<void>;
}

export type Ask = (target: Target, body: Record<string, unknown>) => Promise<unknown>;

/** Send a feature to a target and see that its outcome is what the table says. */
export async function prove(feature: Feature, target: Target, ask: Ask): Promise<void> {
  const outcome = feature.outcome[target.where];
  const param = feature.param ?? Object.keys(feature.body)[0] ?? "";
  if (outcome === "refused") {
    const error = await ask(target, feature.body).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error, `${feature.name} is not refused`).toBeInstanceOf(OpenAI.APIError);
    expect(error).toMatchObject({ status: 400, param });
    return;
  }
  const answer = await ask(target, feature.body);
  expect(answer).toBeDefined();
  if (outcome === "yes") await feature.check?.(answer as never, target);
  if (outcome !== "passed on") return;
  const received = target.lastRequest()?.body ?? {};
  for (const [name, value] of Object.entries(feature.body)) expect(received[name]).toEqual(value);
}

/** The table a person reads, one section per route. */
export function tableOf(features: readonly Feature[]): string {
  const endpoints = [...new Set(features.map(({ endpoint }) => endpoint))];
  return endpoints
    .map((endpoint) => {
      const rows = features
        .filter((feature) => feature.endpoint === endpoint)
        .map(({ name, outcome }) => `| ${name} | ${outcome.local} | ${outcome.remote} |`);
      return [`### ${endpoint}`, "", "| | local | remote |", "|---|---|---|", ...rows, ""].join("\n");
    })
    .join("\n");
}
