import { expect } from "vitest";
import { type TaskEventBody, taskEventBodySchema } from "#schemas";
import { type Message, runTurn, type TurnInput } from "../loop/index.ts";
import { tools } from "../tools/index.ts";
import { MemoryHost } from "./memory-host.ts";
import { ScriptedModel } from "./scripted-model.ts";

/** A turn over a scripted model and a host in memory, with what watchers get of it. */
export function setUpTurn(
  script: ConstructorParameters<typeof ScriptedModel>[0],
  more: Partial<TurnInput> = {},
) {
  const model = new ScriptedModel(script);
  const host = new MemoryHost({ "a.txt": "one\n" });
  const events: TaskEventBody[] = [];
  const messages: Message[] = [
    { role: "system", content: "You are an agent." },
    { role: "user", content: "Do it." },
  ];
  const cancel = new AbortController();
  const input: TurnInput = {
    model,
    tools,
    host,
    messages,
    limits: { maxSteps: 20, maxOutputTokens: 1000, toolOutputChars: 10_000 },
    context: { maxTokens: 100_000 },
    onEvent: (event) => void events.push(taskEventBodySchema.parse(event)),
    signal: cancel.signal,
    ...more,
  };
  return { model, host, events, messages: input.messages, cancel, input, run: () => runTurn(input) };
}

/** A session is fit to go on: every call has its outcome right after it, and arguments are JSON objects. */
export function expectWhole(messages: readonly Message[]): void {
  let open: string[] = [];
  for (const message of messages) {
    if (message.role === "tool") expect(message.tool_call_id).toBe(open.shift());
    else {
      expect(open).toEqual([]);
      const calls = message.role === "assistant" ? (message.tool_calls ?? []) : [];
      for (const call of calls) expect(JSON.parse(call.function.arguments)).toBeTypeOf("object");
      open = calls.map(({ id }) => id);
    }
  }
  expect(open).toEqual([]);
}

/** Tools and what became of them, as watchers are told. */
export const statuses = (events: readonly TaskEventBody[]) =>
  events.flatMap((event) => (event.type === "tool" ? [`${event.name} ${event.status}`] : []));
/** What the model was told of its calls. */
export const outcomes = (messages: readonly Message[]) =>
  messages.flatMap((message) => (message.role === "tool" ? [message.content] : []));
