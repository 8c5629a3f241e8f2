import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Orchestrator, startOrchestrator } from "#apps/orchestrator/index.ts";
import { createUser } from "#database/accounts/index.ts";
import { createProject } from "#database/projects/index.ts";
import { enqueueTask } from "#database/queue/index.ts";
import { createLogger, newId, openSecrets, readConfig, TaskTokens } from "#platform";
import { openSandboxes, type Sandboxes } from "#sandbox";
import { type TestDatabase, testDatabase } from "../../tests/support/database.ts";
import { FILES } from "./task.ts";

/** Dispatches under way at once: as many as the database has connections. */
const AT_ONCE = 18;
const POLL_MS = 20;

interface Owner {
  readonly user_id: string;
  readonly project_id: string;
}

/** What a round's tasks came to. */
export interface Ended {
  readonly completed: number;
  /** When the last one ended, ms since the epoch. */
  readonly at: number;
  readonly events: number;
}

/** The product's own orchestrator on a real database, with a user and a project for every session. */
export class BenchStudio implements AsyncDisposable {
  readonly sandboxes: Sandboxes;
  readonly orchestrator: Orchestrator;
  readonly #test: TestDatabase;
  readonly #dataDir: string;
  readonly #owners: Owner[] = [];

  private constructor(parts: {
    sandboxes: Sandboxes;
    orchestrator: Orchestrator;
    test: TestDatabase;
    dataDir: string;
  }) {
    this.sandboxes = parts.sandboxes;
    this.orchestrator = parts.orchestrator;
    this.#test = parts.test;
    this.#dataDir = parts.dataDir;
  }

  /** Room for `sessions` at once. */
  static async open(modelUrl: string, sessions: number): Promise<BenchStudio> {
    const dataDir = await mkdtemp(join(tmpdir(), "cds-bench-"));
    const config = readConfig({
      CDS_DATA_DIR: dataDir,
      CDS_LOG_PRETTY: "false",
      LOG_LEVEL: "error",
      MAX_CONCURRENT_USERS: String(sessions),
      CDS_RATE_LIMIT_SECONDS: "0",
      CDS_MEMORY_THRESHOLD: "0.97",
      CDS_DISK_THRESHOLD: "0.99",
      CDS_WARM_PROCESSES: "0",
      CDS_SPARE_PROCESSES: "0",
      // All answers come at the same moment, and the thread that renews is the one that works on them.
      CDS_LEASE_MS: "30000",
      // Held answers are silence.
      CDS_RUN_SILENCE_MS: "600000",
      CDS_RUN_TIMEOUT_MS: "900000",
    });
    const log = createLogger(config.log);
    const sandboxes = await openSandboxes({ dataDir, log, slots: sessions + 8 });
    const test = await testDatabase({ pool: config.database.pool });
    const secrets = await openSecrets({ masterKey: "a master key of 32 characters or more", dataDir });
    const orchestrator = await startOrchestrator({
      database: test.database,
      config,
      log,
      sandboxes,
      llmUrl: modelUrl.replace(/\/v1$/, ""),
      taskTokens: await TaskTokens.open(secrets),
    });
    const studio = new BenchStudio({ sandboxes, orchestrator, test, dataDir });
    await eachOf(sessions, async () => void studio.#owners.push(await studio.#owner(config.quota)));
    return studio;
  }

  /** Queue a task for each of the first users. @returns when each was accepted, ms since the epoch. */
  async dispatch(runner: string, round: string, prompts: readonly string[]): Promise<number[]> {
    const accepted: number[] = [];
    await eachOf(prompts.length, async (index) => {
      const owner = this.#owners[index];
      if (owner === undefined) throw new Error("there are fewer users than sessions");
      await enqueueTask(this.#test.database.db, {
        ...owner,
        id: `${newId("task")}-${round}`,
        agent: "CodeAgent",
        runner,
        model: "scripted",
        prompt: prompts[index] ?? "",
        priority: 5,
        max_attempts: 1,
        budget: 1,
        pendingLimit: 50,
      });
      accepted[index] = performance.timeOrigin + performance.now();
    });
    return accepted;
  }

  /** When every task of the round has ended, and nothing of its run is left. */
  async ended(round: string): Promise<Ended> {
    const { db } = this.#test.database;
    const name = `%-${round}`;
    const open = () =>
      db
        .selectFrom("tasks")
        .select("id")
        .where("id", "like", name)
        .where("finished_at", "is", null)
        .execute();
    while (this.orchestrator.status().active > 0 || (await open()).length > 0) await sleep(POLL_MS);
    const tasks = await db
      .selectFrom("tasks")
      .select(["state", "finished_at", "last_seq", "error"])
      .where("id", "like", name)
      .execute();
    const failed = tasks.find(({ state }) => state !== "completed");
    if (failed !== undefined) console.log(`a task ended ${failed.state}: ${JSON.stringify(failed.error)}`);
    return {
      completed: tasks.filter(({ state }) => state === "completed").length,
      at: Math.max(...tasks.map(({ finished_at }) => finished_at?.getTime() ?? 0)),
      events: tasks.reduce((sum, { last_seq }) => sum + last_seq, 0),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.orchestrator.close(0);
    await this.sandboxes.close();
    await this.#test[Symbol.asyncDispose]();
    await rm(this.#dataDir, { recursive: true, force: true });
  }

  async #owner(quota: ReturnType<typeof readConfig>["quota"]): Promise<Owner> {
    const { database } = this.#test;
    const user = { password_hash: "none", role: "developer", initial_balance: 1_000_000 } as const;
    const { id: user_id } = await createUser(database.db, { ...user, username: `u${newId("user")}` });
    const files = Object.entries(FILES).map(([path, text]) => ({ path, content: Buffer.from(text) }));
    const start = { author: "bench", summary: "start", files };
    const project = await createProject(database, { owner_id: user_id, name: "bench", quota, start });
    return { user_id, project_id: project.id };
  }
}

/** `act` for every number below `count`, some at a time. */
async function eachOf(count: number, act: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < count) await act(next++);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}
