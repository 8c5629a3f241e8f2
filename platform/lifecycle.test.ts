import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { Lifecycle } from "./lifecycle.ts";
import { createLogger } from "./log.ts";

const log = createLogger({ level: "silent", pretty: false });

describe("lifecycle", () => {
  it("[MU-11] closes in the opposite order, once, whatever fails or hangs", async () => {
    const order: string[] = [];
    const parts = new Lifecycle(log);
    parts.add("first", () => void order.push("first"));
    parts.add("throws at once", () => {
      throw new Error("boom");
    });
    parts.add("rejects", async () => {
      await sleep(5);
      throw new Error("boom");
    });
    parts.add("hangs", () => new Promise(() => undefined), 30);
    parts.add("last", async () => {
      await sleep(5);
      order.push("last");
    });
    const [failed, again] = await Promise.all([parts.close(), parts.close()]);
    expect(order).toEqual(["last", "first"]);
    expect(failed).toEqual(["hangs", "rejects", "throws at once"]);
    expect(again).toBe(failed);
  });

  it("closes at the end of a block", async () => {
    let closed = false;
    {
      await using parts = new Lifecycle(log);
      parts.add("part", () => {
        closed = true;
      });
    }
    expect(closed).toBe(true);
  });
});
