import fc from "fast-check";
import type OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { collect, type LlmUser, startLlmServer, type TestLlmServer } from "#tests/support/llm-server.ts";
import type { ChatMessage } from "../requests/chat-request.ts";
import { planReply } from "./plan.ts";
import { textsFor } from "./texts.ts";
import { Toolbox } from "./tools.ts";

type Tool = OpenAI.ChatCompletionFunctionTool & Record<string, unknown>;

function tool(name: string, properties: string[], required = properties): Tool {
  const schema = Object.fromEntries(properties.map((property) => [property, { type: "string" }]));
  return {
    type: "function",
    function: { name, parameters: { type: "object", properties: schema, required } },
  };
}

/** As opencode 1.18 offers them. */
const TOOLS = [
  tool("read", ["filePath", "offset", "limit"], ["filePath"]),
  tool("glob", ["pattern", "path"], ["pattern"]),
  tool("write", ["content", "filePath"]),
  tool("edit", ["filePath", "oldString", "newString", "replaceAll"], ["filePath", "oldString", "newString"]),
  tool("bash", ["command", "timeout", "workdir", "description"], ["command"]),
  tool("todowrite", ["todos"]),
];
const GREETING = `1: export function greet(name) {\n2:   return \`Hello, \${name}!\`;\n3: }`;
const PASSED = "ℹ tests 2\nℹ pass 2\nℹ fail 0\n";

/** Play a conversation to its end, answering each call; throws when there is none after 20 turns. */
function play(prompt: string, answer: (name: string, args: Record<string, string>) => string, tools = TOOLS) {
  const messages: ChatMessage[] = [{ role: "user", content: prompt }];
  const calls: { name: string; args: Record<string, string> }[] = [];
  const said: string[] = [];
  for (let turn = 0; turn < 20; turn += 1) {
    const { text, call } = planReply({ messages, tools });
    said.push(text);
    if (call === undefined) return { calls, said, last: text };
    calls.push({ name: call.name, args: call.arguments });
    messages.push({ role: "assistant", content: text, tool_calls: [{ id: `c${turn}`, function: call }] });
    messages.push({ role: "tool", content: answer(call.name, call.arguments), tool_call_id: `c${turn}` });
  }
  throw new Error("the demo does not come to an end");
}

const answers = (given: Record<string, string>) => (name: string) => given[name] ?? "ok";

describe("the demo's plan", () => {
  it("does the sample task: read, write, write, test, summary", () => {
    const { calls, said, last } = play(
      "Add a farewell function with a test",
      answers({ read: GREETING, write: "Wrote file successfully.", bash: PASSED }),
    );
    expect(calls.map(({ name, args }) => `${name} ${args.filePath ?? args.command}`)).toEqual([
      "read src/greeting.js",
      "write src/farewell.js",
      "write src/farewell.test.js",
      "bash node --test",
    ]);
    expect(calls[1]?.args.content).toContain("export function farewell(name)");
    expect(said[0]).toMatch(/^This is the demo model: a script without AI\./);
    expect(last).toContain("without AI");
    expect(last).toContain("The tests pass.");
  });

  it("speaks German to those who do", () => {
    const { said, last } = play(
      "Füge eine Abschiedsfunktion mit Test hinzu",
      answers({ read: GREETING, bash: "bash: line 1: node: command not found" }),
    );
    expect(said[0]).toContain("ohne KI (without AI).");
    expect(last).toContain("Node.js gibt es in dieser Sandbox nicht");
    expect(textsFor("Schreibe mir bitte ein Programm").label).toContain("ohne KI");
    expect(textsFor("Write me a program, please").label).toContain("without AI");
  });

  it("follows the manner of the greeting it reads", () => {
    const common = `function greet(n) { return \`Hallo, \${n}!\` }\nmodule.exports = { greet };`;
    const { calls } = play("a farewell please", answers({ read: common }));
    expect(calls[1]?.args.content).toContain("module.exports = { farewell }");
    expect(calls[1]?.args.content).toContain("Auf Wiedersehen, ");
    expect(calls[2]?.args.content).toContain('require("./farewell.js")');
  });

  it("reads before it writes where the tool insists, and gives up on what stays refused", () => {
    let writes = 0;
    const insisting = play("farewell", (name) =>
      name === "write" && ++writes === 1 ? "Error: You must read the file before overwriting it" : "ok",
    );
    expect(insisting.calls.map(({ name }) => name)).toEqual([
      "read",
      "write",
      "read",
      "write",
      "write",
      "bash",
    ]);
    const refusing = play(
      "farewell",
      answers({ write: "Error: permission denied", read: "File not found: x" }),
    );
    expect(refusing.last).toContain("Could not be written: src/farewell.js, src/farewell.test.js.");
    expect(refusing.calls.some(({ name }) => name === "bash")).toBe(false);
    const failing = play("farewell", answers({ bash: "ℹ pass 1\nℹ fail 1" }));
    expect(failing.last).toContain("did not pass");
  });

  it("writes any other prompt down where it can be reviewed, and says what a real model needs", () => {
    const fresh = play("Build me a web shop\nwith two lines", answers({ glob: "No files found" }));
    expect(fresh.calls.map(({ name }) => name)).toEqual(["glob", "write"]);
    expect(fresh.calls[1]?.args).toMatchObject({ filePath: "DEMO.md" });
    expect(fresh.calls[1]?.args.content).toContain("> Build me a web shop\n> with two lines\n");
    expect(fresh.last).toContain("provider.set");
    expect(fresh.last).toContain("OPENAI_API_KEY");
    const content = fresh.calls[1]?.args.content ?? "";
    const again = play("And a second one", answers({ glob: "/w/DEMO.md", read: content }));
    expect(again.calls.map(({ name }) => name)).toEqual(["glob", "read", "edit"]);
    expect(content).toContain(again.calls[2]?.args.oldString);
    const broken = play(
      "And a third",
      answers({ glob: "/w/DEMO.md", read: content, edit: "Error: no match" }),
    );
    expect(broken.calls.map(({ name }) => name)).toEqual(["glob", "read", "edit", "write"]);
  });

  it("only answers in text where no tool is of use", () => {
    const none = play("Add a farewell", () => "", [tool("todowrite", ["todos"])]);
    expect(none.calls).toEqual([]);
    expect(none.last).toContain("nothing I could write with");
    const plain = planReply({ messages: [{ role: "user", content: "Hello" }] });
    expect(plain).toEqual({
      text: expect.stringMatching(/^This is the demo model: a script without AI\. You wrote: "Hello"/),
    });
    const strange = new Toolbox([
      tool("write", ["filePath", "content", "approval"]),
      {},
      { function: {} },
      null,
    ]);
    expect(strange.call("write", { path: "a", content: "b" })).toBeUndefined();
    expect(strange.empty).toBe(false);
  });

  it("uses other parameter names and tool names when the schema has them", () => {
    const tools = new Toolbox([tool("write_file", ["file_path", "contents"]), tool("shell", ["cmd"])]);
    expect(tools.call("write", { path: "a", content: "b" })).toEqual({
      name: "write_file",
      arguments: { file_path: "a", contents: "b" },
    });
    expect(tools.call("bash", { command: "ls", description: "Lists" })?.arguments).toEqual({ cmd: "ls" });
  });

  it("gives a short title when asked for one", () => {
    const { text } = planReply({
      messages: [
        { role: "system", content: "You are a title generator. You output ONLY a thread title." },
        {
          role: "user",
          content: [
            { type: "text", text: "Generate a title for this conversation:\n" },
            { type: "text", text: `"Add a farewell ${"very ".repeat(40)}"` },
          ],
        },
      ],
    });
    expect(text).toMatch(/^Demo: Add a farewell/);
    expect(text.length).toBeLessThanOrEqual(50);
  });

  it("starts anew with the next prompt and leaves reminders of the runner out", () => {
    const { call } = planReply({
      tools: TOOLS,
      messages: [
        { role: "user", content: "farewell" },
        { role: "assistant", content: "done" },
        { role: "tool", content: "x", tool_call_id: "1" },
        { role: "user", content: "<system-reminder>be quick</system-reminder>Tell me a story" },
      ],
    });
    expect(call?.name).toBe("glob");
  });

  it("comes to an end whatever is asked, offered and answered", () => {
    const anyAnswer = fc.constantFrom(
      "ok",
      "",
      "Error: no",
      "File not found: a",
      GREETING,
      PASSED,
      "<!-- demo: the next",
    );
    fc.assert(
      fc.property(
        fc.oneof(fc.string(), fc.constant("farewell"), fc.constant("Abschied, bitte")),
        fc.subarray(TOOLS),
        fc.array(anyAnswer, { minLength: 20, maxLength: 20 }),
        (prompt, tools, results) => {
          let index = 0;
          const { calls, said } = play(prompt, () => results[index++] ?? "", tools);
          expect(calls.length).toBeLessThanOrEqual(8);
          expect(said.every((text) => text !== "")).toBe(true);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("the demo model over the API", () => {
  let server: TestLlmServer;
  let user: LlmUser;
  beforeAll(async () => {
    server = await startLlmServer();
    user = await server.user();
  });
  afterAll(() => server?.[Symbol.asyncDispose]());

  const ask = (content: string) => ({ model: "demo", messages: [{ role: "user" as const, content }] });

  it("[US-3] needs no key, streams tool calls, and is held and settled like any model", async () => {
    const runner = user.client.chat.completions.stream({
      ...ask("Add a farewell function with a test"),
      tools: TOOLS,
      stream_options: { include_usage: true },
    });
    const final = await runner.finalChatCompletion();
    expect(final.choices[0]?.finish_reason).toBe("tool_calls");
    expect(final.choices[0]?.message.tool_calls?.[0]).toMatchObject({
      type: "function",
      function: { name: "read", arguments: '{"filePath":"src/greeting.js"}' },
    });
    const { used, held, balance } = await server.account(user.user_id);
    expect(held).toBe(0);
    expect(used[0]).toMatchObject({
      input_tokens: final.usage?.prompt_tokens,
      output_tokens: final.usage?.completion_tokens,
    });
    expect(balance).toBe(10_000_000 - (used[0]?.cost_microcredits ?? 0));
  });

  it("answers whole, with the tool call in the message", async () => {
    const answer = await user.client.chat.completions.create({ ...ask("farewell"), tools: TOOLS });
    expect(answer.choices[0]?.message.tool_calls).toHaveLength(1);
    expect(answer.usage?.total_tokens).toBeGreaterThan(100);
  });

  it("keeps to max_tokens, and never cuts a tool call in half", async () => {
    const cut = await user.client.chat.completions.create({ ...ask("Hello there"), max_tokens: 7 });
    expect(cut.choices[0]?.finish_reason).toBe("length");
    expect(cut.usage?.completion_tokens).toBeLessThanOrEqual(7);
    const body = { ...ask("farewell"), tools: TOOLS, max_tokens: 5, stream: true as const };
    const chunks = await collect(await user.client.chat.completions.create(body));
    expect(chunks.some((chunk) => chunk.choices[0]?.delta.tool_calls !== undefined)).toBe(false);
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe("length");
  });

  it("gives one choice only, and is charged for what was streamed when cancelled", async () => {
    await expect(user.client.chat.completions.create({ ...ask("x"), n: 2 })).rejects.toMatchObject({
      status: 400,
      param: "n",
    });
    const me = await server.user();
    const stream = await me.client.chat.completions.create({ ...ask("Hello"), stream: true });
    let seen = 0;
    for await (const _ of stream) if (++seen === 5) break;
    const { used, held } = await server.account(me.user_id);
    expect(held).toBe(0);
    expect(used).toHaveLength(1);
    expect(used[0]?.output_tokens).toBeLessThan(40);
    const poor = await server.user({ balance: 0 });
    await expect(poor.client.chat.completions.create(ask("x"))).rejects.toMatchObject({ status: 402 });
  });
});
