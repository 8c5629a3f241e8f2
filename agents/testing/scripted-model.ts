import type { Model, ModelCall, ModelDelta } from "../loop/index.ts";

/** What a model says at one step. */
export interface Said {
  text?: string | readonly string[];
  thought?: string;
  calls?: readonly { id?: string; name: string; arguments: unknown }[];
  /** Null: the answer ends without a reason. */
  finish?: string | null;
  usage?: { input_tokens: number; output_tokens: number };
  /** Thrown after everything else. */
  error?: Error;
  /** Never goes on after everything else, and does not heed the signal either. */
  hang?: boolean;
}

/** A model that says what it was told to say, step by step; at the seam of the loop there is nothing else of one. */
export class ScriptedModel implements Model {
  readonly asked: ModelCall[] = [];
  readonly #script: (call: ModelCall, step: number) => Said;

  constructor(script: readonly Said[] | ((call: ModelCall, step: number) => Said)) {
    const say = (step: number) =>
      (typeof script === "function" ? undefined : script[step]) ?? { text: "Done." };
    this.#script = typeof script === "function" ? script : (_, step) => say(step);
  }

  async *stream(call: ModelCall): AsyncGenerator<ModelDelta> {
    const said = this.#script(call, this.asked.length);
    this.asked.push({ ...call, messages: [...call.messages] });
    if (said.thought !== undefined) yield { type: "thought", text: said.thought };
    for (const text of [said.text ?? []].flat()) yield { type: "text", text };
    for (const [index, wanted] of (said.calls ?? []).entries()) {
      const fields = wanted.arguments;
      const json = typeof fields === "string" ? fields : JSON.stringify(fields);
      yield { type: "call", index, id: wanted.id ?? `c${this.asked.length}-${index}`, name: wanted.name };
      const half = Math.ceil(json.length / 2);
      yield { type: "call", index, arguments: json.slice(0, half) };
      yield { type: "call", index, arguments: json.slice(half) };
    }
    if (said.usage !== undefined) yield { type: "usage", ...said.usage };
    if (said.hang === true) await new Promise(() => undefined);
    if (said.error !== undefined) throw said.error;
    if (said.finish === null) return;
    const usual = said.calls === undefined ? "stop" : "tool_calls";
    yield { type: "finish", reason: said.finish ?? usual };
  }
}
