import { describe, expect, it } from "vitest";
import { taskEventBodySchema } from "#schemas";
import { UpdateTranslator } from "./events.ts";

const translator = () => new UpdateTranslator([["s3cret", "[hidden]"]]);
const chunk = (text: string, messageId = "m1", sessionUpdate = "agent_message_chunk") => ({
  sessionUpdate,
  messageId,
  content: { type: "text", text },
});
const output = (text: string) => [{ type: "content", content: { type: "text", text } }];

describe("session updates as events", () => {
  it("tells of a call that opencode refuses as a failed one, by its own name", () => {
    const seen = translator();
    const refused = (toolCallId: string, tool: string, error: string) =>
      [
        { sessionUpdate: "tool_call", toolCallId, title: tool, status: "pending", rawInput: {} },
        {
          ...{ sessionUpdate: "tool_call_update", toolCallId, title: "invalid", status: "in_progress" },
          rawInput: { tool, error },
        },
        {
          ...{ sessionUpdate: "tool_call_update", toolCallId, title: "Invalid Tool", status: "completed" },
          content: output(`The arguments provided to the tool are invalid: ${error}`),
        },
      ].map((update) => seen.translate(update));
    const unavailable = (tool: string) =>
      `Model tried to call unavailable tool '${tool}'. Available tools: x.`;
    const told = (call_id: string, name: string, words: string) => [
      { type: "tool", call_id, name, status: "pending" },
      undefined,
      { type: "tool", call_id, name, status: "failed", output: words },
    ];
    expect(refused("c1", "write", unavailable("write"))).toEqual(
      told("c1", "write", "Not allowed for this agent."),
    );
    expect(refused("c2", "fly", unavailable("fly"))).toEqual(told("c2", "fly", "There is no tool fly."));
    expect(refused("c3", "read", "no JSON at s3cret")).toEqual(told("c3", "read", "no JSON at [hidden]"));
    expect(seen.toolRunning).toBe(false);
  });

  it("translates text, thoughts and a tool's life", () => {
    const seen = translator();
    const events = [
      chunk("Hello "),
      chunk("hm", "p1", "agent_thought_chunk"),
      {
        sessionUpdate: "tool_call",
        toolCallId: "c1",
        title: "write",
        kind: "edit",
        status: "pending",
        rawInput: {},
      },
      {
        sessionUpdate: "tool_call_update",
        toolCallId: "c1",
        title: "write",
        status: "in_progress",
        rawInput: { filePath: "/workspace/request/work/src/a.js", content: "x", cwd: "/workspace" },
      },
      {
        sessionUpdate: "tool_call_update",
        toolCallId: "c1",
        title: "workspace/request/work/src/a.js",
        status: "completed",
        content: output("Wrote file successfully."),
      },
      { sessionUpdate: "usage_update", used: 1 },
      { sessionUpdate: "available_commands_update", availableCommands: [] },
    ].map((update) => seen.translate(update));
    expect(events).toEqual([
      { type: "text", delta: "Hello " },
      { type: "thought", delta: "hm" },
      { type: "tool", call_id: "c1", name: "write", status: "pending" },
      {
        type: "tool",
        call_id: "c1",
        name: "write",
        status: "running",
        input: { filePath: "src/a.js", content: "x" },
      },
      {
        type: "tool",
        call_id: "c1",
        name: "write",
        status: "completed",
        title: "src/a.js",
        output: "Wrote file successfully.",
      },
      undefined,
      undefined,
    ]);
    for (const event of events)
      if (event !== undefined) expect(taskEventBodySchema.parse(event)).toEqual(event);
  });

  it("keeps the last message as the answer, and knows when a tool is at work", () => {
    const seen = translator();
    seen.translate(chunk("first"));
    seen.translate({
      sessionUpdate: "tool_call_update",
      toolCallId: "c",
      title: "bash",
      status: "in_progress",
    });
    expect(seen.toolRunning).toBe(true);
    seen.translate({ sessionUpdate: "tool_call_update", toolCallId: "c", title: "bash", status: "failed" });
    expect(seen.toolRunning).toBe(false);
    seen.translate(chunk("All ", "m2"));
    seen.translate(chunk("done.", "m2"));
    expect(seen.answer).toBe("All done.");
  });

  it("[MU-8] cuts long output and input, hides secrets, and explains a refusal", () => {
    const seen = translator();
    const long = seen.translate({
      sessionUpdate: "tool_call_update",
      toolCallId: "c",
      title: "bash",
      status: "completed",
      rawInput: { command: "y".repeat(100_000), deep: { a: ["s3cret"] } },
      content: output(`begin s3cret ${"x".repeat(100_000)} end`),
    });
    expect(long).toMatchObject({
      truncated: true,
      output: expect.stringMatching(/^begin \[hidden\] .* end$/s),
    });
    expect(JSON.stringify(long).length).toBeLessThan(25_000);
    expect(JSON.stringify(long)).not.toContain("s3cret");
    const refused = seen.translate({
      sessionUpdate: "tool_call_update",
      toolCallId: "d",
      title: "bash",
      status: "failed",
      content: output("The user has specified a rule which prevents you from … [{…}]"),
    });
    expect(refused).toMatchObject({ output: "Not allowed for this agent." });
  });

  it("shrugs at updates that make no sense", () => {
    const seen = translator();
    const odd = [
      {},
      { sessionUpdate: 5 },
      { sessionUpdate: "tool_call" },
      chunk(""),
      { sessionUpdate: "agent_message_chunk" },
    ];
    expect(odd.map((update) => seen.translate(update))).toEqual(odd.map(() => undefined));
    expect(
      seen.translate({
        sessionUpdate: "tool_call",
        toolCallId: "c",
        status: "pending",
        rawInput: [1],
        content: 3,
      }),
    ).toEqual({ type: "tool", call_id: "c", name: "tool", status: "pending" });
  });
});
