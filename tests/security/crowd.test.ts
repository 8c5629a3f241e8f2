import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type Server } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openForTest, shell, type TestSandboxes, until } from "#sandbox/testing/harness.ts";
import { hostState } from "../support/host-state.ts";
import { besiege, unlessBusy } from "../support/hostile.ts";
import { processesNaming } from "../support/leftovers.ts";

const ROUNDS = 6;
const ATTEMPTS = 4;

/** Without control groups nothing but the scheduler stands between them, and it is fair to each process alike. */
describe.each([
  { name: "the best limits", attackers: 50 },
  { name: "rlimits", attackers: 20 },
] as const)("with $name", ({ name, attackers }) => {
  let opened: TestSandboxes;
  let server: Server;
  let port: number;
  beforeAll(async () => {
    opened = await openForTest(name === "rlimits" ? { tier: "rlimits" } : {});
    server = createServer((socket) => socket.pipe(socket)).listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    port = typeof address === "object" ? (address?.port ?? 0) : 0;
  });
  afterAll(async () => {
    server?.close();
    await opened?.[Symbol.asyncDispose]();
  });

  /** As a person would who is told that it could not be started in time. */
  async function persistently<T>(act: () => Promise<T>): Promise<T | undefined> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      const result = await unlessBusy(act);
      if (result !== undefined) return result;
    }
    return undefined;
  }

  /** What another user does meanwhile: a run, and a question to the server. Answers their ms, worst first. */
  async function work(): Promise<{ run: number[]; answer: number[] }> {
    const run: number[] = [];
    const answer: number[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const begun = performance.now();
      const outcome = await persistently(() => shell(opened.sandboxes, "echo fine"));
      expect(outcome).toMatchObject({ code: 0, stdout: "fine\n" });
      const between = performance.now();
      const socket = connect(port, "127.0.0.1");
      socket.write("question");
      expect(String(await once(socket, "data"))).toBe("question");
      socket.destroy();
      run.push(between - begun);
      answer.push(performance.now() - between);
    }
    for (const times of [run, answer]) times.sort((a, b) => b - a);
    return { run, answer };
  }

  describe("23 a crowd of hostile programs", () => {
    it("[MU-3] [MU-6] others' work is done, and nothing of it is left", async () => {
      const before = hostState();
      const alone = await work();
      const mark = `siege-${randomBytes(8).toString("hex")}`;
      const siege = besiege(opened.sandboxes, attackers, mark);
      await until(() => siege.started >= attackers / 2).catch(async (error: unknown) => {
        await siege.stop();
        throw error;
      });
      const among = await work().finally(() => siege.stop());
      expect(siege.limited).toBeGreaterThan(0);
      expect(processesNaming(mark)).toEqual([]);
      expect(opened.sandboxes.slots.inUse).toBe(0);
      expect(hostState()).toEqual(before);
      const told = (what: "run" | "answer") =>
        `${what} ${alone[what][0]?.toFixed(1)} -> ${among[what][0]?.toFixed(1)} ms`;
      console.log(
        `worst of ${ROUNDS}, alone -> among ${attackers} (${name}): ${told("run")}, ${told("answer")}`,
      );
    });
  });
});
