import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { chat, startTestEngine, type TestModel, whole } from "#tests/support/engines.ts";
import { defineModel } from "#tests/support/gguf/catalogue.ts";
import { text, writeGguf } from "#tests/support/gguf/file-format.ts";
import { SCRIPTED } from "#tests/support/gguf/index.ts";

/** As of models that think first: what is asked for begins with a thought that is open. */
const THINKING = [
  "{%- for message in messages %}{%- set content = message.content %}{%- set thought = '' %}",
  "{%- if message.reasoning_content is defined and message.reasoning_content is not none %}",
  "{%- set thought = message.reasoning_content %}",
  "{%- elif '</think>' in content %}",
  "{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}",
  "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}",
  "{%- endif %}",
  "{{- '<|im_start|>' + message.role + '\\n' }}",
  "{%- if message.role == 'assistant' and (loop.last or thought) %}",
  "{{- '<think>\\n' + thought + '\\n</think>\\n\\n' + content.lstrip('\\n') }}",
  "{%- else %}{{- content }}{%- endif %}",
  "{{- '<|im_end|>\\n' }}{%- endfor %}",
  "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}",
].join("");

let dir: string;
let model: TestModel;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "cds-thinking-"));
  const path = join(dir, "thinking.gguf");
  const { metadata, tensors } = defineModel("tiny-scripted");
  writeGguf(path, {
    tensors,
    metadata: metadata.map(([key, value]) =>
      key === "tokenizer.chat_template" ? [key, text(THINKING)] : [key, value],
    ),
  });
  model = await startTestEngine("tiny-scripted", { path });
});
afterAll(async () => {
  await model[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

describe("a local model that thinks first", () => {
  it("has its thoughts told apart from its answer", async () => {
    const { choices, usage } = await whole(model, chat("Hi"));
    expect(choices[0]).toMatchObject({ reasoning: SCRIPTED.plain, text: "", finish: "stop" });
    expect(usage.output_tokens).toBe(9);
  });

  it("thinks nothing where JSON is wanted, for a thought it would be", async () => {
    const { choices } = await whole(model, chat("Hi", { response_format: { type: "json_object" } }));
    expect(choices[0]).toMatchObject({ reasoning: "", finish: "stop" });
    expect(JSON.parse(choices[0]?.text ?? "")).toBeTypeOf("object");
  });
});
