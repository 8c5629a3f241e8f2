import { setTimeout as sleep } from "node:timers/promises";
import type { Runner } from "#agents";
import { readEvents } from "#database/events/index.ts";
import { changeFiles, getChange } from "#database/projects/changes.ts";
import { createProject, readBlobs } from "#database/projects/index.ts";
import { enqueuePlan, enqueueTask, getTask, type NewTask } from "#database/queue/index.ts";
import type { TaskRow } from "#database/schema.ts";
import { createLogger, newId } from "#platform";
import { openSandboxes, type Sandboxes } from "#sandbox";
import { isTerminal, type TaskEvent } from "#schemas";
import { type Round, SAMPLE, scriptedReply } from "#tests/support/agent-scripts.ts";
import { startLlmServer, type TestLlmServer } from "#tests/support/llm-server.ts";
import { type ScriptedProvider, startScriptedProvider } from "#tests/support/provider.ts";
import type { ChatBody, RecordedRequest, Reply } from "#tests/support/provider-replies.ts";
import { type Orchestrator, startOrchestrator } from "../index.ts";

export const BALANCE = 1_000_000_000;
const BUDGET = 1_000_000;
const ATTEMPTS = 3;
const PENDING_LIMIT = 50;
const PATIENCE_MS = 150_000;
const MARK = /\[\[case:(\w+)\]\]/g;

const ENV = {
  LOG_LEVEL: "error",
  CDS_PROVIDER_ALLOW_PRIVATE_HOSTS: "true",
  CDS_RATE_LIMIT_SECONDS: "0",
  CDS_SPARE_PROCESSES: "0",
  CDS_MEMORY_THRESHOLD: "0.98",
  CDS_DISK_THRESHOLD: "0.99",
  // A busy machine's pauses are not what is tried here.
  CDS_LEASE_MS: "30000",
  // Short, for the test of it; longer than a busy machine takes between two words of opencode.
  CDS_RUN_SILENCE_MS: "10000",
} as const;

/** Whose tasks work on what. */
export interface Ground {
  readonly userId: string;
  readonly projectId: string;
  readonly files: Readonly<Record<string, string>>;
}

/** What the model says: rounds of a script, or a reply for each request. */
export type Script = readonly Round[] | ((body: ChatBody) => Reply);

export interface Job
  extends Partial<Pick<NewTask, "continues" | "context" | "builds_on" | "may_plan" | "network" | "budget">> {
  readonly script: Script;
  readonly agent?: string;
  readonly prompt?: string;
  /** The runner's own one unless given. */
  readonly ground?: Ground;
}

export interface Step {
  readonly id: string;
  readonly script: Script;
  readonly after?: readonly string[];
}

/** A task that has ended, and all that is known of it. */
export interface Ended {
  readonly task: TaskRow;
  readonly events: TaskEvent[];
  /** What was asked of the provider for it, in order. */
  readonly requests: RecordedRequest[];
  /** Path -> content it proposes; null = deleted. */
  readonly change: Record<string, string | null>;
}

/** An orchestrator with its sandboxes, database and model server, all real; the provider's models are scripts. */
export class House implements AsyncDisposable {
  readonly llm: TestLlmServer;
  readonly provider: ScriptedProvider;
  readonly sandboxes: Sandboxes;
  readonly orchestrator: Orchestrator;
  /** Every project that was made. */
  readonly grounds: Ground[] = [];
  readonly #scripts = new Map<string, (body: ChatBody) => Reply>();
  readonly #shared = new Map<Runner, Promise<Ground>>();

  private constructor(parts: Pick<House, "llm" | "provider" | "sandboxes" | "orchestrator">) {
    this.llm = parts.llm;
    this.provider = parts.provider;
    this.sandboxes = parts.sandboxes;
    this.orchestrator = parts.orchestrator;
    this.provider.script({
      reply: (body) => this.#scripts.get(caseOf(body) ?? "")?.(body) ?? { text: "Nobody asked for this." },
    });
  }

  static async open(): Promise<House> {
    const llm = await startLlmServer(ENV);
    const { config, database, taskTokens } = llm;
    const log = createLogger({ ...config.log, pretty: false });
    const { dataDir, run } = config;
    const sandboxes = await openSandboxes({ dataDir, log, tempDirPrefix: run.tempDirPrefix });
    const provider = await startScriptedProvider();
    const llmUrl = llm.url.replace(/\/v1$/, "");
    const orchestrator = await startOrchestrator({ database, config, log, sandboxes, llmUrl, taskTokens });
    return new House({ llm, provider, sandboxes, orchestrator });
  }

  get db() {
    return this.llm.db;
  }

  /** A new user with a new project. */
  async ground(files: Readonly<Record<string, string>> = SAMPLE): Promise<Ground> {
    const { baseUrl } = this.provider;
    const settings = { base_url: baseUrl, api_key: `sk-${newId("user")}`, models: ["scripted"] };
    const { user_id } = await this.llm.user({ balance: BALANCE, provider: settings });
    const start = {
      ...{ author: "test", summary: "start" },
      files: Object.entries(files).map(([path, content]) => ({ path, content: Buffer.from(content) })),
    };
    const { quota } = this.llm.config;
    const project = await createProject(this.llm.database, { owner_id: user_id, name: "p", quota, start });
    const ground = { userId: user_id, projectId: project.id, files };
    this.grounds.push(ground);
    return ground;
  }

  /** The runner's own user and project, so that opencode's process stays warm. */
  shared(runner: Runner): Promise<Ground> {
    const ground = this.#shared.get(runner) ?? this.ground();
    this.#shared.set(runner, ground);
    return ground;
  }

  async dispatch(runner: Runner, job: Job): Promise<TaskRow> {
    const { script, agent = "CodeAgent", prompt = "Do it.", ground, ...extras } = job;
    const { userId, projectId } = ground ?? (await this.shared(runner));
    const { task } = await enqueueTask(this.db, {
      ...{ id: newId("task"), user_id: userId, project_id: projectId, agent, runner, model: "scripted" },
      prompt: `${this.#mark(script)} ${prompt}`,
      ...{ priority: 5, max_attempts: ATTEMPTS, budget: BUDGET, pendingLimit: PENDING_LIMIT },
      ...extras,
    });
    return task;
  }

  /** A plan whose steps are the same agent's; their tasks in order. */
  async dispatchPlan(runner: Runner, steps: readonly Step[], ground: Ground): Promise<TaskRow[]> {
    const { userId, projectId } = ground;
    const { tasks } = await enqueuePlan(this.db, {
      ...{ id: newId("plan"), user_id: userId, project_id: projectId },
      steps: steps.map(({ id, script, after = [] }) => ({
        ...{ id, after, task_id: newId("task"), agent: "CodeAgent", runner, model: "scripted", priority: 5 },
        prompt: `${this.#mark(script)} Do ${id}.`,
      })),
      ...{ max_attempts: ATTEMPTS, budget: BUDGET, pendingLimit: PENDING_LIMIT },
    });
    return tasks;
  }

  async run(runner: Runner, job: Job): Promise<Ended> {
    return this.ended(await this.dispatch(runner, job));
  }

  async ended({ id }: Pick<TaskRow, "id">): Promise<Ended> {
    const task = await this.until(id, ({ state }) => isTerminal(state));
    return {
      task,
      events: await readEvents(this.db, id, 0, 100_000),
      requests: this.requests(task),
      change: await this.#change(task),
    };
  }

  /** Wait for something of a task. */
  async until(id: string, condition: (task: TaskRow) => boolean): Promise<TaskRow> {
    return wait(`${id} is so`, async () => {
      const task = await getTask(this.db, id);
      return task !== undefined && condition(task) ? task : undefined;
    });
  }

  /** Wait for an event of a task. */
  async event(id: string, condition: (event: TaskEvent) => boolean): Promise<TaskEvent> {
    return wait(`${id} tells it`, async () =>
      (await readEvents(this.db, id, 0, 100_000)).find((event) => condition(event)),
    );
  }

  /** Wait until the provider was asked for a task. */
  async asked(task: TaskRow): Promise<RecordedRequest> {
    return wait(`${task.id} asks`, async () => this.requests(task).at(0));
  }

  requests({ prompt }: Pick<TaskRow, "prompt">): RecordedRequest[] {
    const [[, id] = []] = [...prompt.matchAll(MARK)];
    return this.provider.requests.filter(({ body }) => caseOf(body) === id);
  }

  /** A prompt's mark, for what the model is to say to it. */
  #mark(script: Script): string {
    const id = newId("task");
    this.#scripts.set(id, typeof script === "function" ? script : scriptedReply(script));
    return `[[case:${id}]]`;
  }

  /** A prompt for a step that an agent hands on. */
  promptFor(script: Script): string {
    return `${this.#mark(script)} Do it.`;
  }

  async #change({ change_id }: TaskRow): Promise<Ended["change"]> {
    if (change_id === null) return {};
    const files = await changeFiles(this.db, await getChange(this.db, change_id));
    const hashes = files.flatMap(({ after }) => (after === null ? [] : [after.blob_hash]));
    const blobs = await readBlobs(this.db, hashes);
    const textOf = (hash: Buffer) => blobs.get(hash.toString("hex"))?.toString() ?? "missing";
    return Object.fromEntries(
      files.map(({ path, after }) => [path, after === null ? null : textOf(after.blob_hash)]),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.orchestrator.close(0);
    await this.sandboxes.close();
    await this.provider.close();
    await this.llm[Symbol.asyncDispose]();
  }
}

/** The last mark in what the user said: what was before stands in front of a task's own prompt. */
function caseOf({ messages = [] }: ChatBody): string | undefined {
  const asked = JSON.stringify(messages.filter(({ role }) => role === "user"));
  return [...asked.matchAll(MARK)].at(-1)?.[1];
}

/** Wait until something is there. @throws when that takes too long. */
export async function wait<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  for (const end = performance.now() + PATIENCE_MS; ; await sleep(15)) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > end) throw new Error(`waited too long until ${what}`);
  }
}
