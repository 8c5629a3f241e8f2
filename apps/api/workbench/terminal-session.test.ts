import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openForTest, specFor, type TestSandboxes } from "#sandbox/testing/harness.ts";
import type { Connection } from "../handler.ts";
import { TerminalSession } from "./terminal-session.ts";

let opened: TestSandboxes;

beforeAll(async () => {
  opened = await openForTest();
});
afterAll(() => opened[Symbol.asyncDispose]());

/** One side of a connection: what it is told is kept, and taken at once or never. */
function listener(takes: boolean) {
  const outputs: string[] = [];
  const connection = {
    closed: new AbortController().signal,
    notify(name: string, params: { data?: string }) {
      if (name === "terminal.output") outputs.push(params.data ?? "");
      return takes ? Promise.resolve() : new Promise(() => undefined);
    },
  } as unknown as Connection;
  return { connection, outputs, text: () => outputs.join("") };
}

describe("what a terminal sends", () => {
  it("waits for the connection that shows it, not for one that has stalled before", async () => {
    const slot = await opened.sandboxes.slots.acquire();
    const script = "echo vor''her; read more; head -c 300000 /dev/zero | tr '\\0' x; echo en''de; read more";
    const terminal = await opened.sandboxes.run.startTerminal({
      ...specFor(slot, ["sh", "-c", script]),
      size: { cols: 80, rows: 24 },
    });
    const session = new TerminalSession({
      id: "trm_test",
      user_id: "usr_test",
      project_id: "prj_test",
      command: "sh",
      terminal,
      size: { columns: 80, rows: 24 },
      detachedMs: 60_000,
    });
    const stalled = listener(false);
    session.attach(stalled.connection);
    await expect.poll(stalled.text).toContain("vorher");
    const sent = stalled.outputs.length;
    session.attach(stalled.connection);
    expect(stalled.outputs, "shown again to one that has not taken it").toHaveLength(sent);

    const other = listener(true);
    session.attach(other.connection);
    expect(other.text()).toContain("vorher");
    session.input("\n");
    await expect.poll(other.text).toContain("ende");
    expect(stalled.outputs).toHaveLength(sent);

    await session.kill();
    await session.drained;
    session.tellExit(await terminal.exited);
    await slot.release();
  });
});
