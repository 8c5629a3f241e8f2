import { mkdtempSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createUser } from "#database/accounts/index.ts";
import { readEvents } from "#database/events/index.ts";
import { changeFiles, getChange } from "#database/projects/changes.ts";
import { createProject, readBlobs } from "#database/projects/index.ts";
import type { Project } from "#database/projects/types.ts";
import { enqueueTask, getTask, type NewTask } from "#database/queue/index.ts";
import type { TaskRow } from "#database/schema.ts";
import { type Config, createLogger, newId, openSecrets, readConfig, TaskTokens } from "#platform";
import { openSandboxes, type Sandboxes } from "#sandbox";
import { isTerminal, type TaskEvent } from "#schemas";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { type ScriptedProvider, startScriptedProvider } from "#tests/support/provider.ts";
import { type Orchestrator, startOrchestrator } from "../index.ts";

export interface Dispatched {
  readonly id: string;
  readonly userId: string;
  readonly project: Project;
}

/** Real opencode in real sandboxes on a real database; the scripted provider stands where the model server is. */
export class Harness implements AsyncDisposable {
  readonly config: Config;
  readonly test: TestDatabase;
  readonly provider: ScriptedProvider;
  readonly sandboxes: Sandboxes;
  readonly dataDir: string;
  orchestrator: Orchestrator;
  readonly #parts: Parts;

  private constructor(parts: Parts, orchestrator: Orchestrator) {
    this.config = parts.config;
    this.test = parts.test;
    this.provider = parts.provider;
    this.sandboxes = parts.sandboxes;
    this.dataDir = parts.config.dataDir;
    this.orchestrator = orchestrator;
    this.#parts = parts;
  }

  static async start(env: Record<string, string> = {}): Promise<Harness> {
    const dataDir = mkdtempSync(join(tmpdir(), "cds-orch-"));
    const config = readConfig({
      CDS_DATA_DIR: dataDir,
      LOG_LEVEL: "error",
      CDS_LOG_PRETTY: "false",
      CDS_RATE_LIMIT_SECONDS: "0",
      CDS_SPARE_PROCESSES: "0",
      CDS_MEMORY_THRESHOLD: "0.98",
      CDS_DISK_THRESHOLD: "0.99",
      ...env,
    });
    const log = createLogger(config.log);
    const sandboxes = await openSandboxes({ dataDir, log, tempDirPrefix: config.run.tempDirPrefix });
    const test = await testDatabase();
    const provider = await startScriptedProvider();
    const secrets = await openSecrets({ masterKey: "a master key of 32 characters or more", dataDir });
    const taskTokens = await TaskTokens.open(secrets);
    const parts = { config, test, provider, sandboxes, taskTokens };
    return new Harness(parts, await start(parts));
  }

  /** Another instance on the same database, as after a restart. */
  async restart(): Promise<void> {
    this.orchestrator = await start(this.#parts);
  }

  async user(): Promise<string> {
    const username = `u${newId("user")}`;
    const password_hash = "none";
    const user = { username, password_hash, role: "developer" as const, initial_balance: 10_000_000 };
    return (await createUser(this.test.database.db, user)).id;
  }

  project(owner_id: string, files: Record<string, string> = {}): Promise<Project> {
    const start = {
      author: "test",
      summary: "start",
      files: Object.entries(files).map(([path, content]) => ({ path, content: Buffer.from(content) })),
    };
    return createProject(this.test.database, { owner_id, name: "p", quota: this.config.quota, start });
  }

  /** Queue a prompt; a new user and project unless given. */
  async dispatch(
    prompt: string,
    where: Partial<
      Pick<NewTask, "agent" | "runner" | "continues" | "builds_on" | "resolves" | "may_plan">
    > & {
      userId?: string;
      project?: Project;
      files?: Record<string, string>;
      attempts?: number;
    } = {},
  ): Promise<Dispatched> {
    const userId = where.userId ?? (await this.user());
    const project = where.project ?? (await this.project(userId, where.files));
    const { task } = await enqueueTask(this.test.database.db, {
      id: newId("task"),
      user_id: userId,
      project_id: project.id,
      agent: where.agent ?? "CodeAgent",
      runner: where.runner ?? "opencode",
      model: "scripted",
      prompt,
      priority: 5,
      max_attempts: where.attempts ?? 3,
      budget: 1000,
      pendingLimit: 50,
      ...pick(where),
    });
    return { id: task.id, userId, project };
  }

  async task(id: string): Promise<TaskRow> {
    const task = await getTask(this.test.database.db, id);
    if (task === undefined) throw new Error("no such task");
    return task;
  }

  async ended(id: string, timeoutMs = 120_000): Promise<TaskRow> {
    return this.until(id, (task) => isTerminal(task.state), timeoutMs);
  }

  async until(id: string, condition: (task: TaskRow) => boolean, timeoutMs = 120_000): Promise<TaskRow> {
    for (const end = performance.now() + timeoutMs; ; await sleep(10)) {
      const task = await this.task(id);
      if (condition(task)) return task;
      if (performance.now() > end) throw new Error(`task is ${task.state} after ${timeoutMs} ms`);
    }
  }

  events(id: string): Promise<TaskEvent[]> {
    return readEvents(this.test.database.db, id, 0, 100_000);
  }

  /** The proposed change of a task: path -> new content, null = deleted. */
  async change(task: TaskRow): Promise<Record<string, string | null>> {
    if (task.change_id === null) return {};
    const files = await changeFiles(
      this.test.database.db,
      await getChange(this.test.database.db, task.change_id),
    );
    const hashes = files.flatMap(({ after }) => (after === null ? [] : [after.blob_hash]));
    const blobs = await readBlobs(this.test.database.db, hashes);
    return Object.fromEntries(
      files.map(({ path, after }) => [
        path,
        after === null ? null : (blobs.get(after.blob_hash.toString("hex"))?.toString() ?? "missing"),
      ]),
    );
  }

  /** Directories of slots on disk. */
  async slotDirectories(): Promise<string[]> {
    const probe = await this.sandboxes.slots.acquire();
    const names = await readdir(dirname(probe.dir));
    await probe.release();
    return names.filter(
      (name) => name.startsWith(this.config.run.tempDirPrefix) && name !== basename(probe.dir),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.orchestrator.close(0);
    await this.sandboxes.close();
    await this.provider.close();
    await this.test[Symbol.asyncDispose]();
    await rm(this.dataDir, { recursive: true, force: true });
  }
}

/** What a task goes on from. */
function pick({ continues, builds_on, resolves, may_plan }: Partial<NewTask>): Partial<NewTask> {
  return {
    ...(continues === undefined ? {} : { continues }),
    ...(builds_on === undefined ? {} : { builds_on }),
    ...(resolves === undefined ? {} : { resolves }),
    ...(may_plan === undefined ? {} : { may_plan }),
  };
}

interface Parts {
  readonly config: Config;
  readonly test: TestDatabase;
  readonly provider: ScriptedProvider;
  readonly sandboxes: Sandboxes;
  readonly taskTokens: TaskTokens;
}

function start({ config, test, provider, sandboxes, taskTokens }: Parts): Promise<Orchestrator> {
  return startOrchestrator({
    database: test.database,
    config,
    log: createLogger(config.log),
    sandboxes,
    llmUrl: provider.baseUrl.replace(/\/v1$/, ""),
    taskTokens,
  });
}
