import { describe, expect, it } from "vitest";
import { idSchema } from "#schemas";
import { newId } from "./ids.ts";

describe("ids", () => {
  it("are unique, valid and sort by creation, also many within one millisecond", () => {
    const ids = Array.from({ length: 100_000 }, () => newId("task"));
    expect(new Set(ids).size).toBe(ids.length);
    expect([...ids].sort()).toEqual(ids);
    expect(ids[0]).toMatch(/^tsk_[0-9a-hjkmnp-tv-z]{26}$/);
    expect(idSchema.safeParse(ids[0]).success).toBe(true);
  });

  it("keep their order when more are made in one millisecond than its counter holds", () => {
    const now = Date.now() + 60_000;
    const ids = Array.from({ length: 40_000 }, () => newId("task", now));
    expect(new Set(ids).size).toBe(ids.length);
    expect([...ids].sort()).toEqual(ids);
  });

  it("keep their order when the clock steps back", () => {
    const ahead = Date.now() + 120_000;
    const first = newId("user", ahead);
    const second = newId("user", ahead - 5000);
    expect(first < second).toBe(true);
    expect(newId("project")).toMatch(/^prj_/);
  });
});
