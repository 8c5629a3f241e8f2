import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "kysely";
import { openSecrets } from "#platform/secrets.ts";
import type { Random } from "../simulation/random.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { type ScriptedProvider, startScriptedProvider } from "../support/provider.ts";
import { type ServerProcess, startServer, stopServer } from "../support/server-process.ts";
import { endsOf, leftOf, marksOf, wrongAtEnd, wrongNow } from "./resume-checks.ts";
import { Jobs, replyTo } from "./resume-jobs.ts";
import { type Point, pointsNow, STAGES, type Stage, takenOver } from "./resume-stages.ts";

const MASTER_KEY = "a master key of 32 characters or more";
const LOOK_MS = 20;
/** A bound for being broken, on a machine with other things to do. */
const PATIENCE_MS = 240_000;
const MAX_ROUNDS = 60;

export interface CampaignOptions {
  readonly random: Random;
  readonly runner: "native" | "opencode";
  readonly users: number;
  /** Tasks at work at once. */
  readonly capacity: number;
  /** Tasks of each user under way or waiting, at least. */
  readonly perUser: number;
  /** A stage that is not met by then is met in another round, ms. */
  readonly reachMs: number;
  /** Before each word of the model, ms. */
  readonly delayMs: number;
  /** Tasks at work to be met by a kill, those that wait not counted. */
  readonly points: number;
  /** All of them have to be met. */
  readonly stages: readonly Stage[];
}

export interface Met {
  readonly kills: number;
  readonly stages: Record<Stage, number>;
  /** From the end of a lease, or the next worker's start where that was later, to the taking over; ms. */
  readonly takeOverMs: number[];
  /** How many tasks ended in which way. */
  readonly outcomes: Record<string, number>;
  /** Whose tasks have completed. */
  readonly agents: string[];
}

/** A studio with many users' tasks at work that is killed at chosen moments, and started again each time. */
export class Campaign implements AsyncDisposable {
  readonly #options: CampaignOptions;
  readonly #test: TestDatabase;
  readonly #provider: ScriptedProvider;
  readonly #dataDir: string;
  readonly #jobs: Jobs;
  #server: ServerProcess;
  #marks: string;

  private constructor(
    options: CampaignOptions,
    parts: { test: TestDatabase; provider: ScriptedProvider; dataDir: string; jobs: Jobs },
    server: ServerProcess,
  ) {
    this.#options = options;
    this.#test = parts.test;
    this.#provider = parts.provider;
    this.#dataDir = parts.dataDir;
    this.#jobs = parts.jobs;
    this.#server = server;
    this.#marks = marksOf(server.child.pid ?? 0);
  }

  static async open(options: CampaignOptions): Promise<Campaign> {
    const { random, delayMs } = options;
    const test = await testDatabase();
    const provider = await startScriptedProvider();
    provider.script({ reply: (body) => replyTo(body, delayMs) });
    const dataDir = await mkdtemp(join(tmpdir(), "cds-resume-"));
    const secrets = await openSecrets({ masterKey: MASTER_KEY, dataDir });
    const { baseUrl } = provider;
    const jobs = await Jobs.open({ ...options, random, secrets, baseUrl, database: test.database });
    const parts = { test, provider, dataDir, jobs };
    return new Campaign(options, parts, await startWorker(parts, options));
  }

  /** Kill until enough was met; then let everything end. @throws what is wrong after a kill or at the end. */
  async run(): Promise<Met> {
    const stages = Object.fromEntries(STAGES.map((stage) => [stage, 0])) as Record<Stage, number>;
    const takeOverMs: number[] = [];
    const { points: wanted, stages: needed } = this.#options;
    let kills = 0;
    const enough = () => {
      const met = STAGES.reduce((sum, stage) => sum + (stage === "waiting" ? 0 : stages[stage]), 0);
      return met >= wanted && needed.every((stage) => stages[stage] > 0);
    };
    for (; !enough(); kills += 1) {
      if (kills === MAX_ROUNDS) throw new Error(`after ${kills} kills only ${JSON.stringify(stages)}`);
      await this.#jobs.fill();
      const aim =
        needed.find((stage) => stages[stage] === 0 && kills > 2) ?? this.#options.random.pick(needed);
      const points = await this.#killAt(aim ?? "model asked");
      for (const { stage } of points) stages[stage] += 1;
      takeOverMs.push(...(await this.#startAgain(points)));
    }
    await this.#until("every task has ended", async () => {
      const left = await pointsNow(this.#db);
      return left.map(({ task_id, stage }) => `${task_id} ${stage}`);
    });
    nothing("at the end", await wrongAtEnd(this.#db));
    await stopServer(this.#server, "SIGTERM");
    nothing("after the stop", await leftOf(this.#marks, this.#dataDir));
    return { kills, stages, takeOverMs, ...(await endsOf(this.#db)) };
  }

  get #db() {
    return this.#test.database.db;
  }

  /** Kill the worker when some task is there; answers how far all of them had come. */
  async #killAt(aim: Stage): Promise<Point[]> {
    await sleep(this.#options.random.int(0, 1500));
    if (aim !== "ending") {
      await this.#reach(aim);
      return this.#kill();
    }
    // Nothing can be proposed while this holds: tasks stand at their end. What the worker had begun there is
    // answered by the database after its death.
    return this.#db.transaction().execute(async (trx) => {
      await sql`LOCK TABLE changes IN SHARE MODE`.execute(trx);
      await this.#reach(aim);
      return this.#kill();
    });
  }

  async #reach(aim: Stage): Promise<void> {
    const end = performance.now() + this.#options.reachMs;
    while (performance.now() < end) {
      if ((await pointsNow(this.#db)).some(({ stage }) => stage === aim)) return;
      await sleep(LOOK_MS);
    }
  }

  async #kill(): Promise<Point[]> {
    await stopServer(this.#server, "SIGKILL");
    return pointsNow(this.#db);
  }

  /** Another worker takes over what is left; answers how long that took, ms. */
  async #startAgain(points: readonly Point[]): Promise<number[]> {
    const dead = this.#marks;
    this.#server = await startWorker({ test: this.#test, dataDir: this.#dataDir }, this.#options);
    this.#marks = marksOf(this.#server.child.pid ?? 0);
    const { rows } = await sql<{ now: Date }>`SELECT clock_timestamp() AS now`.execute(this.#db);
    const next = rows[0]?.now ?? new Date();
    await this.#until("nothing is left of the dead worker", () => leftOf(dead, this.#dataDir));
    let afterMs: number[] = [];
    await this.#until("its tasks are taken over", async () => {
      const taken = await takenOver(this.#db, points, next);
      afterMs = taken.afterMs;
      return taken.left;
    });
    nothing("after a kill", await wrongNow(this.#db));
    return afterMs;
  }

  /** Wait until nothing is left. */
  async #until(what: string, left: () => Promise<string[]>): Promise<void> {
    const end = performance.now() + PATIENCE_MS;
    for (;;) {
      const found = await left();
      if (found.length === 0) return;
      if (performance.now() > end) throw new Error(`waited until ${what}: ${found.join("\n")}`);
      await sleep(LOOK_MS);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await stopServer(this.#server, "SIGTERM");
    await this.#provider.close();
    await this.#test[Symbol.asyncDispose]();
    await rm(this.#dataDir, { recursive: true, force: true });
  }
}

function startWorker(
  { test, dataDir }: { test: TestDatabase; dataDir: string },
  { capacity }: CampaignOptions,
): Promise<ServerProcess> {
  return startServer(dataDir, {
    DATABASE_URL: test.url,
    CDS_DB_POOL: "10",
    CDS_MASTER_KEY: MASTER_KEY,
    CDS_LEASE_MS: "2000",
    MAX_CONCURRENT_PROCESSES: String(capacity),
  });
}

function nothing(when: string, wrong: readonly string[]): void {
  if (wrong.length > 0) throw new Error(`${when}:\n${wrong.join("\n")}`);
}
