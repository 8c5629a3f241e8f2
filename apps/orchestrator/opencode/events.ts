import { toolEvent } from "#agents/loop/index.ts";
import { tools } from "#agents/tools/index.ts";
import { asObject } from "#platform/json.ts";
import type { TaskEventBody } from "#schemas";
import { INSIDE } from "./config.ts";

const MAX_NAME_CHARS = 100;
const MAX_ANSWER_CHARS = 64 * 1024;
const MAX_TOOL_CALLS = 10_000;

type ToolEvent = Extract<TaskEventBody, { type: "tool" }>;

const STATUSES: Readonly<Record<string, ToolEvent["status"]>> = {
  pending: "pending",
  in_progress: "running",
  completed: "completed",
  failed: "failed",
};

/** Turns one prompt's `session/update`s into events for its watchers, and remembers what the run came to. */
export class UpdateTranslator {
  /** Text, and what stands in its place: addresses and passwords that mean nothing to a watcher. */
  readonly #hidden: readonly (readonly [string, string])[];
  readonly #tools = new Map<string, string>();
  readonly #running = new Set<string>();
  /** Calls that opencode refused, by what is wrong with them. */
  readonly #refused = new Map<string, string>();
  #answer = "";
  #answerId: unknown;

  constructor(hidden: readonly (readonly [string, string])[]) {
    this.#hidden = [...hidden, [`${INSIDE.work}/`, ""], [`${INSIDE.work.slice(1)}/`, ""], [INSIDE.work, "."]];
  }

  /** The text of the agent's last message. */
  get answer(): string {
    return this.#answer;
  }

  /** Whether a tool is at work, so that the model's silence is none. */
  get toolRunning(): boolean {
    return this.#running.size > 0;
  }

  translate(update: Record<string, unknown>): TaskEventBody | undefined {
    switch (update.sessionUpdate) {
      case "agent_message_chunk":
        return this.#message(update);
      case "agent_thought_chunk": {
        const delta = this.#clean(textOf(update.content));
        return delta === "" ? undefined : { type: "thought", delta };
      }
      case "tool_call":
      case "tool_call_update":
        return this.#tool(update);
      default:
        return undefined;
    }
  }

  /** A text as a watcher may see it. */
  clean(text: string): string {
    return this.#clean(text);
  }

  #message(update: Record<string, unknown>): TaskEventBody | undefined {
    const delta = this.#clean(textOf(update.content));
    if (delta === "") return undefined;
    if (update.messageId !== this.#answerId) {
      this.#answerId = update.messageId;
      this.#answer = "";
    }
    if (this.#answer.length < MAX_ANSWER_CHARS) this.#answer += delta;
    return { type: "text", delta };
  }

  #tool(update: Record<string, unknown>): TaskEventBody | undefined {
    const { toolCallId: call_id } = update;
    const given = STATUSES[String(update.status)];
    if (typeof call_id !== "string" || given === undefined) return undefined;
    const refusal = this.#refusal(call_id, update);
    // opencode runs a tool of its own in place of what it refuses, which then has "completed".
    if (refusal !== undefined && given === "running") return undefined;
    const status = refusal !== undefined && given === "completed" ? "failed" : given;
    const title =
      refusal === undefined && typeof update.title === "string" ? this.#clean(update.title) : undefined;
    // The first update names the tool in its title, later ones say what it works on.
    if (!this.#tools.has(call_id) && this.#tools.size < MAX_TOOL_CALLS) {
      this.#tools.set(call_id, title ?? String(update.kind ?? "tool"));
    }
    if (status === "running") this.#running.add(call_id);
    else this.#running.delete(call_id);
    const name = this.#tools.get(call_id) ?? "tool";
    const { cwd: _, ...input } = refusal === undefined ? (asObject(update.rawInput) ?? {}) : {};
    const output = refusal ?? readableOutput(outputOf(update.content));
    const moment = { call_id, name, status, title: title === name ? undefined : title, input, output };
    return toolEvent(moment, (text) => this.#clean(text));
  }

  /** What is wrong with a call that opencode refused. */
  #refusal(call_id: string, update: Record<string, unknown>): string | undefined {
    const { tool, error } = asObject(update.rawInput) ?? {};
    if (update.title === "invalid" && typeof tool === "string" && typeof error === "string")
      this.#refused.set(call_id, readableRefusal(this.#clean(tool), this.#clean(error)));
    return this.#refused.get(call_id);
  }

  #clean(text: string): string {
    let clean = text;
    for (const [secret, instead] of this.#hidden) {
      if (clean.includes(secret)) clean = clean.replaceAll(secret, instead);
    }
    return clean;
  }
}

function textOf(content: unknown): string {
  const block = asObject(content);
  return block?.type === "text" && typeof block.text === "string" ? block.text : "";
}

function outputOf(content: unknown): string {
  if (!Array.isArray(content)) return "";
  return content.map((item) => textOf(asObject(item)?.content)).join("");
}

/** What it says of a tool that the agent does not have names all those it has, and its own besides. */
function readableRefusal(tool: string, error: string): string {
  if (!error.includes("unavailable tool")) return error;
  return tools.some(({ name }) => name === tool)
    ? "Not allowed for this agent."
    : `There is no tool ${tool.slice(0, MAX_NAME_CHARS)}.`;
}

/** opencode answers a forbidden call with a dump of all its rules. */
function readableOutput(output: string): string {
  return output.startsWith("The user has specified a rule which prevents")
    ? "Not allowed for this agent."
    : output;
}
