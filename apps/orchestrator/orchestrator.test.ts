import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Harness } from "./testing/harness.ts";

let harness: Harness;
beforeAll(async () => {
  harness = await Harness.start();
});
afterAll(() => harness[Symbol.asyncDispose]());

describe("a run", () => {
  it("[OC-1] turns a prompt into a proposed change and streams what happens", async () => {
    const { id } = await harness.dispatch("[[file:hello.txt]][[content:hi there]] write it", {
      files: { "README.md": "# Sample\n", "src/a.js": "export {};\n" },
    });
    const task = await harness.ended(id);
    const events = await harness.events(id);
    expect(task.error).toBeNull();
    expect(task.state).toBe("completed");
    expect(await harness.change(task)).toEqual({ "hello.txt": "hi there\n" });
    expect(events.at(-1)).toMatchObject({ type: "done", state: "completed" });
  });
});
