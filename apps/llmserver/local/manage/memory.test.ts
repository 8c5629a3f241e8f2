import { readFileSync } from "node:fs";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { findLocalModel } from "#database/models/index.ts";
import type { Memory } from "#platform/host/host-load.ts";
import type { AppError } from "#schemas";
import { type MachineModels, startMachineModels } from "#tests/support/machine-models.ts";
import { ModelMemory } from "./memory.ts";

const NEVER = new AbortController().signal;
const GB = 1024 ** 3;

describe("memory for models", () => {
  const memoryOf = (available: number) =>
    new ModelMemory({
      reserveBytes: 1 * GB,
      idle: () => [],
      read: () => ({ totalBytes: 16 * GB, availableBytes: available }),
    });

  it("keeps a reserve, and what others were promised but have not taken yet", async () => {
    const memory = memoryOf(8 * GB);
    const first = memory.holding();
    await memory.admit(first, 4 * GB, NEVER);
    const second = memory.holding();
    await expect(memory.admit(second, 4 * GB, NEVER)).rejects.toMatchObject({
      code: "Unavailable",
      details: {
        ...{ reason: "insufficient_memory", needed_bytes: 4 * GB, available_bytes: 3 * GB },
        retry_after_seconds: expect.any(Number),
      },
    });
    // What it has taken shows in the machine's own figures.
    first.resident = async () => 3 * GB;
    await memory.admit(second, 4 * GB, NEVER);
    second[Symbol.dispose]();
    await memory.admit(memory.holding(), 5 * GB, NEVER);
  });

  it("says so when no waiting would help", async () => {
    const error = await memoryOf(8 * GB)
      .admit({ resident: async () => 0, [Symbol.dispose]() {} }, 20 * GB, NEVER)
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ details: { hint: expect.stringContaining("too small") } });
    expect(error).not.toHaveProperty("details.retry_after_seconds");
  });

  it("promises nothing to who has left", async () => {
    const memory = memoryOf(8 * GB);
    const left = AbortSignal.abort(new Error("left"));
    await expect(memory.admit(memory.holding(), 4 * GB, left)).rejects.toThrow("left");
    await memory.admit(memory.holding(), 7 * GB, NEVER);
  });
});

describe("[LLM-3] models in a machine's memory", () => {
  const names = ["tiny-bpe", "tiny-spm", "tiny-scripted"] as const;
  let machine: MachineModels;
  /** Of every process seen here. */
  const pids = new Set<number>();
  /** What the machine has for models: theirs is taken from it as from a real machine's. */
  let roomBytes = 0;
  /** Of the largest of our models, as it is estimated. */
  let oneModel = 0;
  const readMemory = (): Memory => {
    const taken = [...pids].reduce((sum, pid) => sum + residentBytes(pid), 0);
    return { totalBytes: 64 * GB, availableBytes: roomBytes - taken };
  };
  beforeAll(async () => {
    machine = await startMachineModels(names, {}, { readMemory });
    for (const name of names) {
      const error = await machine.models.loadModel(name).catch((reason: unknown) => reason);
      oneModel = Math.max(oneModel, (error as AppError).details.needed_bytes as number);
    }
    expect(oneModel).toBeGreaterThan(10e6);
  });
  beforeEach(async () => {
    await machine.restart();
    roomBytes = 2.4 * oneModel;
  });
  afterAll(() => machine?.[Symbol.asyncDispose]());

  const loaded = async () => [...(await machine.models.memory()).keys()].sort();
  const open = async (name: (typeof names)[number]) => {
    const use = await machine.models.open(name, NEVER);
    pids.add(use.model.pid);
    return use;
  };

  it("make room when nobody uses them, the one unused for longest first", async () => {
    for (const name of ["tiny-bpe", "tiny-spm", "tiny-bpe"] as const) (await open(name))[Symbol.dispose]();
    using _ = await open("tiny-scripted");
    expect(await loaded()).toEqual(["tiny-bpe", "tiny-scripted"]);
    expect(await findLocalModel(machine.db, "tiny-spm")).toMatchObject({ is_loaded: false, enabled: true });
  });

  it("stay while they are used: the new one is refused, with what it needs and what there is", async () => {
    const [bpe, spm] = await Promise.all([open("tiny-bpe"), open("tiny-spm")]);
    await expect(open("tiny-scripted")).rejects.toMatchObject({
      status: 503,
      message: expect.stringMatching(/needs \d+ MB of memory; \d+ MB are available/),
      options: { code: "insufficient_memory", retryAfterSeconds: expect.any(Number) },
    });
    expect(await loaded()).toEqual(["tiny-bpe", "tiny-spm"]);
    spm[Symbol.dispose]();
    using _ = await open("tiny-scripted");
    expect(await loaded()).toEqual(["tiny-bpe", "tiny-scripted"]);
    bpe[Symbol.dispose]();
  });

  it("are not unloaded when that would not help", async () => {
    (await open("tiny-bpe"))[Symbol.dispose]();
    roomBytes = 0.5 * oneModel;
    await expect(open("tiny-spm")).rejects.toMatchObject({ options: { code: "insufficient_memory" } });
    expect(await loaded()).toEqual(["tiny-bpe"]);
  });
});

function residentBytes(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}
