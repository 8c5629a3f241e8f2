import { setImmediate as tick } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { expectWhole, outcomes, setUpTurn, statuses } from "../testing/turns.ts";
import { tools, toolsFor } from "../tools/index.ts";

describe("a turn", () => {
  it("asks, runs what is called in its order, tells what came of it, and ends with the answer", async () => {
    const turn = setUpTurn([
      {
        thought: "hm",
        text: ["Look", "ing."],
        calls: [
          { name: "read", arguments: { filePath: "a.txt" } },
          {
            name: "edit",
            arguments: { filePath: "/workspace/request/work/a.txt", oldString: "one", newString: "two" },
          },
        ],
        usage: { input_tokens: 10, output_tokens: 5 },
      },
      { text: "Changed /workspace/request/work/a.txt.", usage: { input_tokens: 20, output_tokens: 6 } },
    ]);
    const end = await turn.run();
    expect(end).toEqual({
      reason: "end_turn",
      answer: "Changed a.txt.",
      steps: 2,
      usage: { input_tokens: 30, output_tokens: 11 },
    });
    expect(turn.host.text("a.txt")).toBe("two\n");
    expect(turn.events).toEqual([
      { type: "thought", delta: "hm" },
      { type: "text", delta: "Look" },
      { type: "text", delta: "ing." },
      { type: "tool", call_id: "c1-0", name: "read", status: "pending" },
      { type: "tool", call_id: "c1-1", name: "edit", status: "pending" },
      { type: "tool", call_id: "c1-0", name: "read", status: "running", input: { filePath: "a.txt" } },
      {
        type: "tool",
        call_id: "c1-0",
        name: "read",
        status: "completed",
        title: "a.txt",
        input: { filePath: "a.txt" },
        output: "1\tone",
      },
      {
        type: "tool",
        call_id: "c1-1",
        name: "edit",
        status: "running",
        input: { filePath: "a.txt", oldString: "one", newString: "two" },
      },
      {
        type: "tool",
        call_id: "c1-1",
        name: "edit",
        status: "completed",
        title: "a.txt",
        input: { filePath: "a.txt", oldString: "one", newString: "two" },
        output: "Changed a.txt at line 1.",
      },
      { type: "text", delta: "Changed a.txt." },
    ]);
    expectWhole(turn.messages);
    expect(turn.messages.map(({ role }) => role)).toEqual([
      "system",
      "user",
      "assistant",
      "tool",
      "tool",
      "assistant",
    ]);
    expect(turn.model.asked[1]?.messages).toEqual(turn.messages.slice(0, -1));
    expect(turn.model.asked[0]).toMatchObject({
      maxOutputTokens: 1000,
      tools: tools.map((tool) => tool.spec),
    });
  });

  it("goes on with the same session: a further word, and everything from before is there", async () => {
    const turn = setUpTurn([
      { calls: [{ id: "same", name: "list", arguments: {} }] },
      { text: "One." },
      { calls: [{ id: "same", name: "list", arguments: {} }] },
      { text: "Two." },
    ]);
    await turn.run();
    turn.messages.push({ role: "user", content: "Now also…" });
    expect((await turn.run()).answer).toBe("Two.");
    expectWhole(turn.messages);
    // Models that count their calls anew in every answer mix up nobody.
    const ids = turn.messages.flatMap((message) => (message.role === "tool" ? [message.tool_call_id] : []));
    expect(new Set(ids).size).toBe(2);
    expect(turn.model.asked[3]?.messages).toHaveLength(8);
  });

  it("tells the model what is wrong with a call instead of failing", async () => {
    const wrong = [
      { name: "read", arguments: '{"filePath": "a.t' },
      { name: "read", arguments: "[1]" },
      { name: "write", arguments: { filePath: "x" } },
      { name: "read", arguments: { filePath: "gone.txt" } },
      { name: "read", arguments: { filePath: "../../etc/passwd" } },
      { name: "webfetch", arguments: { url: "http://x" } },
      { name: "edit", arguments: { filePath: "a.txt", oldString: "one", newString: "two" } },
      { name: "", arguments: {} },
    ];
    const turn = setUpTurn([{ calls: wrong }, { text: "I give up." }], { tools: toolsFor({ edit: "deny" }) });
    expect(await turn.run()).toMatchObject({ reason: "end_turn", answer: "I give up." });
    expectWhole(turn.messages);
    expect(outcomes(turn.messages)).toEqual([
      expect.stringContaining("are no JSON"),
      expect.stringContaining("arguments of read are wrong"),
      "Not allowed for this agent.",
      "There is no gone.txt.",
      expect.stringContaining("lies outside"),
      "There is no tool webfetch. There are: read, bash, grep, glob, list.",
      "Not allowed for this agent.",
      expect.stringContaining("There is no tool unnamed"),
    ]);
    expect(turn.host.text("a.txt")).toBe("one\n");
    expect(statuses(turn.events).filter((status) => status.endsWith("failed"))).toHaveLength(8);
  });

  it("bounds what the model and what watchers get of an output", async () => {
    const turn = setUpTurn([{ calls: [{ name: "bash", arguments: { command: "x".repeat(10_000) } }] }, {}], {
      limits: { maxSteps: 5, maxOutputTokens: 10, toolOutputChars: 40_000 },
    });
    turn.host.onExec = async () => ({ output: `begin ${"y".repeat(100_000)} end` });
    await turn.run();
    const [outcome = ""] = outcomes(turn.messages);
    expect(outcome.length).toBeLessThanOrEqual(40_000);
    expect(outcome).toMatch(/^begin y+[\s\S]*left out[\s\S]*y end/);
    const done = turn.events.find((event) => event.type === "tool" && event.status === "completed");
    expect(done).toMatchObject({ truncated: true, output: expect.stringMatching(/^begin [\s\S]* end$/) });
    expect(JSON.stringify(done).length).toBeLessThan(25_000);
  });

  it.each([
    [
      "length",
      {
        text: "Half of",
        calls: [{ name: "write", arguments: '{"filePath":"a.txt","content":"ha' }],
        finish: "length",
      },
    ],
    ["content_filter", { text: "I", finish: "content_filter" }],
  ] as const)("ends with %s, running nothing of an answer that was cut", async (reason, said) => {
    const turn = setUpTurn([said]);
    expect(await turn.run()).toMatchObject({ reason, answer: said.text, steps: 1 });
    expectWhole(turn.messages);
    expect(turn.host.text("a.txt")).toBe("one\n");
    expect(turn.model.asked).toHaveLength(1);
  });

  it("ends after as many answers as it may have", async () => {
    const turn = setUpTurn(
      (_, step) => ({ calls: [{ name: "read", arguments: { filePath: "a.txt", limit: step + 1 } }] }),
      {
        limits: { maxSteps: 7, maxOutputTokens: 10, toolOutputChars: 1000 },
      },
    );
    expect(await turn.run()).toMatchObject({ reason: "max_steps", steps: 7 });
    expectWhole(turn.messages);
  });

  it("ends when the model goes round in circles, alone or between two calls", async () => {
    const turn = setUpTurn(() => ({ calls: [{ name: "read", arguments: { filePath: "a.txt" } }] }));
    expect(await turn.run()).toMatchObject({ reason: "doom_loop", steps: 3 });
    const between = setUpTurn((_, step) => ({
      calls: [
        { name: "list", arguments: { path: step % 2 === 0 ? "" : "." } },
        { name: "list", arguments: {} },
      ],
    }));
    expect((await between.run()).reason).toBe("doom_loop");
    expectWhole(between.messages);
    expect(outcomes(between.messages).at(-1)).toMatch(/./);
  });

  it("takes the same test failing after every change for no circle", async () => {
    const turn = setUpTurn((_, step) => {
      if (step === 10) return { text: "It works." };
      return step % 2 === 0
        ? { calls: [{ name: "bash", arguments: { command: "npm test" } }] }
        : { calls: [{ name: "write", arguments: { filePath: "a.txt", content: `${step}` } }] };
    });
    turn.host.onExec = async () => ({ code: 1, output: "1 failed" });
    expect((await turn.run()).reason).toBe("end_turn");
  });

  it("compacts a session that grows beyond its limit, and goes on", async () => {
    const turn = setUpTurn(
      (_, step) =>
        step === 12
          ? { text: "Read all." }
          : { calls: [{ name: "bash", arguments: { command: `cat ${step}` } }] },
      {
        context: { maxTokens: 2000 },
      },
    );
    turn.host.onExec = async () => ({ output: "word ".repeat(400) });
    expect(await turn.run()).toMatchObject({ reason: "end_turn", steps: 13 });
    expectWhole(turn.messages);
    for (const { messages } of turn.model.asked) expectWhole(messages);
    expect(turn.messages.length).toBeLessThan(26);
    expect(turn.messages.slice(0, 2)).toEqual([
      { role: "system", content: "You are an agent." },
      { role: "user", content: "Do it." },
    ]);
  });

  it("waits at the gate before every step", async () => {
    let open = false;
    let waits = 0;
    const turn = setUpTurn([{ calls: [{ name: "list", arguments: {} }] }, { text: "Done." }], {
      beforeStep: async () => {
        waits += 1;
        while (!open) await tick();
      },
    });
    const ended = turn.run();
    for (let round = 0; round < 10; round += 1) await tick();
    expect(turn.model.asked).toHaveLength(0);
    open = true;
    expect((await ended).reason).toBe("end_turn");
    expect(waits).toBe(3);
  });
});
