import { describe, expect, it } from "vitest";
import type { Caller } from "#platform/authenticate.ts";
import { ApiError } from "./api-error.ts";
import { ModelLimits } from "./limits.ts";

const none = { requestsPerMinute: 0, tokensPerMinute: 0 };
const person: Caller = { user_id: "usr_a", username: "ada", role: "developer", via: "jwt" };
const program: Caller = { ...person, via: "api_key" };

function refusal(act: () => void): ApiError {
  try {
    act();
  } catch (error) {
    if (error instanceof ApiError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("[LLM-4] limits per user and API key", () => {
  it("count requests per user, whoever asks for them", () => {
    const limits = new ModelLimits({ user: { ...none, requestsPerMinute: 2 }, key: none });
    limits.admit(person);
    limits.admit(program);
    const error = refusal(() => limits.admit(person));
    expect(error.status).toBe(429);
    expect(error.envelope().error).toMatchObject({ type: "requests", code: "rate_limit_exceeded" });
    expect(Number(error.headers()["retry-after"])).toBeGreaterThan(0);
    limits.admit({ ...person, user_id: "usr_b" });
  });

  it("hold an API key to less than its owner", () => {
    const limits = new ModelLimits({
      user: { ...none, requestsPerMinute: 10 },
      key: { ...none, requestsPerMinute: 1 },
    });
    limits.admit(program);
    refusal(() => limits.admit(program));
    // What was refused did not count against the user.
    expect(limits.headers(person)["x-ratelimit-remaining-requests"]).toBe("9");
    limits.admit(person);
  });

  it("let a call go ahead while tokens are left, and make up for it before the next", () => {
    const limits = new ModelLimits({ user: { ...none, tokensPerMinute: 100 }, key: none });
    limits.admit(person);
    limits.used(person, 250);
    const error = refusal(() => limits.admit(person));
    expect(error.envelope().error.type).toBe("tokens");
    expect(Number(error.headers()["retry-after"])).toBeGreaterThan(60);
    expect(limits.headers(person)).toMatchObject({
      "x-ratelimit-limit-tokens": "100",
      "x-ratelimit-remaining-tokens": "0",
    });
  });

  it("leave tasks to their own ceilings, and nobody where none is set", () => {
    const limits = new ModelLimits({ user: { requestsPerMinute: 1, tokensPerMinute: 1 }, key: none });
    const task: Caller = { ...person, via: "task", task: { task_id: "tsk_1", attempt: 1 } };
    for (let call = 0; call < 5; call += 1) {
      limits.admit(task);
      limits.used(task, 1000);
    }
    expect(limits.headers(task)).toEqual({});
    const open = new ModelLimits({ user: none, key: none });
    for (let call = 0; call < 100; call += 1) open.admit(program);
    expect(open.headers(program)).toEqual({});
  });
});
