import { describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { AcpError } from "../acp/client.ts";
import { BridgeRun } from "../bridge/bridge.ts";
import { finishFailure, runFailure, startFailure, timeFailure, worthRetry } from "./failures.ts";
import { RunStop } from "./run-stop.ts";

const SOME_TASK = { token: "t", model: "m", onActivity: () => undefined, gate: async () => undefined };

function calls(fields: Partial<BridgeRun> = {}): BridgeRun {
  return Object.assign(new BridgeRun(SOME_TASK), fields);
}
const provider = { code: "ProviderError", message: "the provider is down" };

describe("what counts as success", () => {
  it("is end_turn after an answer the model finished, and nothing else", () => {
    expect(finishFailure("end_turn", calls({ lastFinish: "stop" }), 10)).toBeUndefined();
    expect(finishFailure("end_turn", calls({ lastFinish: "eos" }), 10)).toBeUndefined();
    expect(finishFailure("end_turn", calls(), 10)?.code).toBe("RunFailed");
    expect(finishFailure("end_turn", calls({ lastFinish: "tool_calls" }), 10)?.code).toBe("RunFailed");
    expect(finishFailure("cancelled", calls({ lastFinish: "stop" }), 10)?.code).toBe("RunFailed");
    expect(finishFailure("max_tokens", calls({ lastFinish: "length" }), 10)?.message).toContain("10 tokens");
    expect(finishFailure("end_turn", calls({ lastFinish: "length" }), 10)?.hint).toContain("CDS_MAX_TOKENS");
    expect(finishFailure("end_turn", calls({ lastFinish: "content_filter" }), 10)?.message).toContain(
      "withheld",
    );
    expect(finishFailure("end_turn", calls({ lastFinish: "stop", error: provider }), 10)).toEqual(provider);
  });
});

describe("how a failure is told", () => {
  it("[MU-10] tries only again what broke before the agent began and may go away", () => {
    expect(worthRetry(new AppError("RunFailed", "x"))).toBe(true);
    expect(worthRetry(new Error("disk"))).toBe(true);
    expect(worthRetry(new AppError("NotFound", "x"))).toBe(false);
    expect(worthRetry(new AppError("EngineUnavailable", "x"))).toBe(false);
  });

  it("prefers the process's end, then the model call's own failure, then opencode's words", () => {
    const died = new AppError("RunFailed", "needed more memory", { hint: "h" });
    const acp = new AcpError(-32603, "Internal error: nonsense", undefined);
    expect(runFailure(acp, calls({ error: provider }), died)).toEqual({
      code: "RunFailed",
      message: "needed more memory",
      hint: "h",
    });
    expect(runFailure(acp, calls({ error: provider }), undefined)).toEqual(provider);
    expect(runFailure(acp, calls(), undefined).message).toBe("The agent failed: nonsense");
    expect(runFailure(new Error("secret path"), calls(), undefined).message).not.toContain("secret");
    expect(startFailure(new Error("secret path")).message).not.toContain("secret");
  });

  it("tells the model's silence from the agent's, and both from the clock", () => {
    const limits = { timeoutMs: 5000, silenceMs: 1500 };
    expect(timeFailure("timeout", limits, false)).toMatchObject({
      code: "Timeout",
      message: expect.stringContaining("5 s"),
    });
    expect(timeFailure("silence", limits, true).code).toBe("ProviderTimeout");
    expect(timeFailure("silence", limits, false)).toMatchObject({
      code: "Timeout",
      message: expect.stringContaining("1.5 s"),
    });
  });
});

describe("stopping a run", () => {
  it("keeps the first reason, but for a lost lease", async () => {
    const stop = new RunStop();
    expect(stop.reason).toBeUndefined();
    stop.stop("cancelled");
    stop.stop("timeout");
    expect(stop.reason).toBe("cancelled");
    await expect(stop.stopped).rejects.toMatchObject({ reason: "cancelled" });
    stop.stop("lost");
    expect(stop.reason).toBe("lost");
    expect(stop.signal.aborted).toBe(true);
  });
});
