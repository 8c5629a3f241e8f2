import { describe, expect, it } from "vitest";
import type { Message } from "../types.ts";
import { toHistory } from "./history.ts";
import { Refusal } from "./refusal.ts";

const call = (id: string, args = '{"city":"Rome"}') => ({
  id,
  type: "function",
  function: { name: "get_weather", arguments: args },
});
const asked: Message = { role: "assistant", content: null, tool_calls: [call("c1")] };

function refusal(messages: readonly Message[]) {
  try {
    toHistory(messages);
  } catch (error) {
    if (error instanceof Refusal) return { status: error.fields.status, param: error.fields.param };
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("messages of a chat", () => {
  it("of all roles are taken, parts of text joined", () => {
    expect(
      toHistory([
        { role: "developer", content: "Be brief." },
        {
          role: "user",
          content: [
            { type: "text", text: "Hello" },
            { type: "text", text: " there" },
          ],
        },
        { role: "assistant", content: "Hi." },
        { role: "user", content: "Bye" },
      ]),
    ).toEqual([
      { type: "system", text: "Be brief." },
      { type: "user", text: "Hello there" },
      { type: "model", response: ["Hi."] },
      { type: "user", text: "Bye" },
      { type: "model", response: [] },
    ]);
  });

  it("a turn with calls, their results and what is said after them is one", () => {
    const history = toHistory([
      { role: "user", content: "Weather?" },
      { role: "assistant", content: "Let me look.", tool_calls: [call("c1"), call("c2", "")] },
      { role: "tool", tool_call_id: "c2", content: "rainy" },
      { role: "tool", tool_call_id: "c1", content: '{"sky":"clear"}' },
      { role: "assistant", content: "Clear in Rome." },
      { role: "user", content: "Thanks" },
    ]);
    expect(history).toMatchObject([
      { type: "user" },
      {
        type: "model",
        response: [
          "Let me look.",
          { type: "functionCall", name: "get_weather", params: { city: "Rome" }, result: { sky: "clear" } },
          { type: "functionCall", params: {}, result: "rainy" },
          "Clear in Rome.",
        ],
      },
      { type: "user" },
      { type: "model", response: [] },
    ]);
  });

  it("results keep what a number cannot hold", () => {
    const result = '{"id": 12345678901234567890}';
    const history = toHistory([asked, { role: "tool", tool_call_id: "c1", content: result }]);
    expect(history).toMatchObject([{ response: [{ result }] }]);
  });

  it("that cannot be taken are refused by their place", () => {
    const user = { role: "user", content: "Hi" };
    const image = { type: "image_url", image_url: { url: "data:," } };
    expect(refusal([])).toEqual({ status: 400, param: "messages" });
    expect(refusal([user, { role: "user", content: [image] }]).param).toBe("messages[1].content");
    expect(refusal([{ role: "user" }]).param).toBe("messages[0].content");
    expect(refusal([{ role: "function", content: "x" }]).param).toBe("messages[0].role");
    expect(refusal([user, { role: "tool", tool_call_id: "no", content: "x" }]).param).toBe(
      "messages[1].tool_call_id",
    );
    expect(refusal([{ ...asked, tool_calls: [call("c1", "{")] }]).param).toBe(
      "messages[0].tool_calls[0].function.arguments",
    );
    expect(refusal([asked, user]).param).toBe("messages[1]");
    expect(refusal([asked]).param).toBe("messages");
    const answered = { role: "tool", tool_call_id: "c1", content: "x" };
    expect(refusal([asked, answered, answered]).param).toBe("messages[2].tool_call_id");
  });
});
