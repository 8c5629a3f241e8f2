import { createUser, type Db, enqueuePlan, enqueueTask, setProvider, type TaskRow } from "#database";
import { providerContext } from "#database/accounts/provider-resolution.ts";
import type { Database } from "#database/open.ts";
import { createProject } from "#database/projects/index.ts";
import { readConfig } from "#platform/config/config.ts";
import { newId } from "#platform/ids.ts";
import type { Secrets } from "#platform/secrets.ts";
import type { Random } from "../simulation/random.ts";
import { AGENT_SCRIPTS, OUTCOMES, SAMPLE, scriptedReply } from "../support/agent-scripts.ts";
import type { ChatBody, Reply } from "../support/provider-replies.ts";

/** Tasks that are killed over and over: of all agents, alone, in plans, made by agents, going on from others. */

const BALANCE = 1_000_000_000;
const BUDGET = 2_000_000;
const PENDING_LIMIT = 50;
/** Few and many: some tasks have to run out of attempts. */
const ATTEMPTS = [3, 6, 12] as const;
/** More than there are kills. */
const ENOUGH_ATTEMPTS = 100;
/** Agents whose results are tried by running tests take long, and come more rarely. */
const AGENTS = [
  ...["CodeAgent", "TestAgent", "DebugAgent", "DesignAgent", "DesignAgent"],
  ...["SecurityAgent", "SecurityAgent", "DocAgent", "DocAgent"],
] as const;
/** A start of opencode takes seconds: no plans, whose steps come one after the other. */
const KINDS = {
  native: ["alone", "alone", "alone", "plan", "planner", "goes on", "goes on"],
  opencode: ["alone", "alone", "goes on"],
} as const;
const REPAIRED_FROM = 0.6;
const REFUSED_FROM = 0.92;

/** What an agent hands on, by steps that build on its own result, and change something whoever made that. */
const HANDED_ON = [
  { id: "notes", agent: "DocAgent", prompt: prompt("DocAgent", "accepted") },
  { id: "audit", agent: "SecurityAgent", prompt: prompt("SecurityAgent", "accepted"), after: ["notes"] },
];
export const HANDED_ON_STEPS = HANDED_ON.length;

function prompt(agent: string, outcome: string, more = ""): string {
  return `[[script:${agent}/${outcome}${more}]] Do it.`;
}

/** What the scripted provider says to such a task; each of its words takes `delayMs`. */
export function replyTo(body: ChatBody, delayMs: number): Reply {
  const asked = (body.messages ?? []).filter(({ role }) => role === "user");
  // The task's own prompt is the last part of what it is told first; what was before stands in front of it.
  const scripts = [...JSON.stringify(asked).matchAll(/\[\[script:(\w+)\/(\w+)( plans)?\]\]/g)];
  const [, agent = "", given, plans] = scripts.at(-1) ?? [];
  const outcome = OUTCOMES.find((each) => each === given);
  const rounds = outcome === undefined ? undefined : AGENT_SCRIPTS[agent]?.[outcome];
  // What opencode asks besides: a title.
  if (rounds === undefined || (body.tools ?? []).length === 0) return { text: "A title", delayMs };
  const reply = scriptedReply(rounds)(body);
  if (plans === undefined || reply.toolCalls !== undefined) return { ...reply, delayMs };
  return { text: `${reply.text}\n\n\`\`\`plan\n${JSON.stringify(HANDED_ON)}\n\`\`\`\n`, delayMs };
}

interface JobsOptions {
  readonly database: Database;
  readonly random: Random;
  readonly runner: "native" | "opencode";
  readonly users: number;
  /** Tasks of each under way or waiting, at least. */
  readonly perUser: number;
  readonly secrets: Secrets;
  /** The scripted provider's address. */
  readonly baseUrl: string;
}

/** Keeps every user's queue filled. */
export class Jobs {
  readonly #options: JobsOptions;
  readonly #users: string[] = [];
  /** Each has a task that completes, whatever is drawn and however often it is killed. */
  readonly #firsts = Object.keys(AGENT_SCRIPTS);

  private constructor(options: JobsOptions) {
    this.#options = options;
  }

  static async open(options: JobsOptions): Promise<Jobs> {
    const jobs = new Jobs(options);
    for (let nth = 0; nth < options.users; nth += 1) jobs.#users.push(await addUser(options));
    return jobs;
  }

  /** Give every user something to do who has too little. */
  async fill(): Promise<void> {
    const { db } = this.#options.database;
    const open = await db
      .selectFrom("tasks")
      .select(["user_id", (eb) => eb.fn.countAll<number>().as("count")])
      .where("state", "in", ["pending", "running"])
      .groupBy("user_id")
      .execute();
    const counts = new Map(open.map(({ user_id, count }) => [user_id, Number(count)]));
    const { perUser } = this.#options;
    for (const user of this.#users)
      for (let count = counts.get(user) ?? 0; count < perUser; ) count += await this.#add(user);
  }

  /** @returns how many tasks it became. */
  async #add(user_id: string): Promise<number> {
    const { database, random, runner } = this.#options;
    const { db } = database;
    const first = runner === "native" ? this.#firsts.pop() : undefined;
    if (first !== undefined) return this.#addFirst(user_id, first);
    const kind = random.pick<string>(KINDS[runner]);
    if (kind === "plan") return this.#addPlan(user_id);
    const former = kind === "goes on" ? await lastAlone(db, user_id) : undefined;
    const agent = random.pick(AGENTS) ?? "CodeAgent";
    const share = random.next();
    const outcome = share < REPAIRED_FROM ? "accepted" : share < REFUSED_FROM ? "repaired" : "refused";
    await enqueueTask(db, {
      ...this.#shared(user_id),
      id: newId("task"),
      project_id: former?.project_id ?? (await this.#project(user_id)),
      agent,
      priority: random.int(1, 9),
      prompt: prompt(agent, outcome, kind === "planner" ? " plans" : ""),
      may_plan: kind === "planner",
      ...(former === undefined ? {} : { continues: former.id }),
    });
    return 1;
  }

  async #addFirst(user_id: string, agent: string): Promise<number> {
    await enqueueTask(this.#options.database.db, {
      ...{ ...this.#shared(user_id), max_attempts: ENOUGH_ATTEMPTS, id: newId("task"), agent, priority: 5 },
      ...{ project_id: await this.#project(user_id), prompt: prompt(agent, "accepted") },
    });
    return 1;
  }

  async #addPlan(user_id: string): Promise<number> {
    const { runner, model, ...shared } = this.#shared(user_id);
    const step = (agent: string, after: string[]) => ({
      ...{ id: agent.toLowerCase(), after, agent, runner, model, priority: 5 },
      ...{ task_id: newId("task"), prompt: prompt(agent, "accepted") },
    });
    const steps = [
      step("CodeAgent", []),
      step("DesignAgent", []),
      step("DocAgent", ["codeagent", "designagent"]),
    ];
    const project_id = await this.#project(user_id);
    await enqueuePlan(this.#options.database.db, { ...shared, id: newId("plan"), project_id, steps });
    return steps.length;
  }

  #shared(user_id: string) {
    const { random, runner } = this.#options;
    const max_attempts = random.pick(ATTEMPTS);
    const limits = { max_attempts, budget: BUDGET, pendingLimit: PENDING_LIMIT };
    return { user_id, runner, model: "scripted", ...limits };
  }

  async #project(owner_id: string): Promise<string> {
    const files = Object.entries(SAMPLE).map(([path, text]) => ({ path, content: Buffer.from(text) }));
    const start = { author: "test", summary: "start", files };
    const { quota } = readConfig({});
    return (await createProject(this.#options.database, { owner_id, name: "p", quota, start })).id;
  }
}

/** The last of a user's tasks that is no step and has ended. */
function lastAlone(db: Db, user_id: string): Promise<Pick<TaskRow, "id" | "project_id"> | undefined> {
  return db
    .selectFrom("tasks")
    .select(["id", "project_id"])
    .where("user_id", "=", user_id)
    .where("plan_id", "is", null)
    .where("finished_at", "is not", null)
    .orderBy("finished_at", "desc")
    .limit(1)
    .executeTakeFirst();
}

async function addUser({ database, secrets, baseUrl }: JobsOptions): Promise<string> {
  const { db } = database;
  const id = newId("user");
  const user = { id, username: id, password_hash: "-", role: "developer" as const };
  await createUser(db, { ...user, initial_balance: BALANCE });
  const api_key_encrypted = secrets.seal(`key-${id}`, providerContext(id, baseUrl));
  await setProvider(db, { user_id: id, base_url: baseUrl, api_key_encrypted, models: ["scripted"] });
  return id;
}
