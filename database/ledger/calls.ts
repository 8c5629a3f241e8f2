import { sql } from "kysely";
import { AppError } from "#schemas";
import { ALIVE_SECONDS } from "../queue/instances.ts";
import { taskNotFound } from "../queue/read.ts";
import type { Db } from "../schema.ts";
import { microcredits } from "./amount.ts";
import { budgetExceeded, fundsOf, roomOf, spentNow } from "./budgets.ts";

/** Calls one sweep releases; the rest waits for the next. */
const SWEEP_LIMIT = 1000;

export interface NewCall {
  readonly call_id: string;
  readonly user_id: string;
  readonly model: string;
  /** The process that will settle or release it. */
  readonly instance_id: string;
  /** Micro-credits the call may cost at most. */
  readonly hold: number;
  /** The task it is made for: its budget pays, nothing else does. */
  readonly task?: { readonly task_id: string; readonly attempt: number } | undefined;
}

/**
 * Set money aside for a model call, from the account or from its task's budget, in one statement. Every call
 * opened must be settled or released. The same call again changes nothing. What a task may spend was taken from
 * the budgets of its user and its project when it was queued.
 * @throws AppError InsufficientBalance; BudgetExceeded (the user's); Cancelled when the task is not, or no longer,
 * running this attempt; NotFound; Conflict when the id belongs to another call.
 */
export async function openCall(db: Db, call: NewCall): Promise<void> {
  const hold = microcredits("hold", call.hold);
  const payer =
    call.task === undefined
      ? sql`
        UPDATE users SET token_held = token_held + ${hold}::bigint
        WHERE id = ${call.user_id} AND token_balance - token_held >= ${hold}::bigint
          AND (budget_limit IS NULL OR ${hold}::bigint = 0
            OR ${spentNow} + token_held + ${hold}::bigint <= budget_limit)
          AND NOT EXISTS (SELECT 1 FROM llm_calls WHERE id = ${call.call_id})
        RETURNING id`
      : sql`
        UPDATE tasks SET budget_left = budget_left - ${hold}::bigint
        WHERE id = ${call.task.task_id} AND user_id = ${call.user_id} AND state = 'running'
          AND attempt = ${call.task.attempt} AND cancel_requested_at IS NULL AND budget_left >= ${hold}::bigint
          AND NOT EXISTS (SELECT 1 FROM llm_calls WHERE id = ${call.call_id})
        RETURNING id`;
  const { rows } = await sql`
    WITH payer AS (${payer}), opened AS (
      INSERT INTO llm_calls (id, user_id, task_id, attempt, model, instance_id, hold_microcredits)
      SELECT ${call.call_id}, ${call.user_id}, ${call.task?.task_id ?? null}::text,
        ${call.task?.attempt ?? null}::integer, ${call.model}, ${call.instance_id}, ${hold}::bigint
      FROM payer RETURNING id, user_id, task_id, hold_microcredits
    ), entry AS (
      INSERT INTO ledger_entries (user_id, kind, balance_delta, held_delta, call_id, idempotency_key)
      SELECT user_id, 'hold', 0, hold_microcredits, id, 'call:' || id || ':hold' FROM opened
      WHERE task_id IS NULL AND hold_microcredits > 0
    )
    SELECT id FROM opened`.execute(db);
  if (rows.length === 0) await explainRefusal(db, call);
}

/** Why nothing was opened; returns when this very call is open already. */
async function explainRefusal(db: Db, call: NewCall): Promise<void> {
  const known = await db
    .selectFrom("llm_calls")
    .select(["user_id", "state", "task_id"])
    .where("id", "=", call.call_id)
    .executeTakeFirst();
  if (known !== undefined) {
    const same = known.user_id === call.user_id && known.task_id === (call.task?.task_id ?? null);
    if (same && known.state === "open") return;
    throw new AppError("Conflict", `The call ${call.call_id} exists already.`);
  }
  throw call.task === undefined ? await noBalance(db, call) : await noBudget(db, call, call.task);
}

async function noBalance(db: Db, { user_id, hold }: NewCall): Promise<AppError> {
  const funds = await fundsOf(db, user_id);
  if (funds === undefined) return new AppError("NotFound", `There is no user ${user_id}.`);
  // Whichever leaves less is what the caller has to fit into.
  if (roomOf(funds.budget) < funds.free) return budgetExceeded("user", funds.budget, hold);
  return new AppError("InsufficientBalance", "Your balance does not cover this call.", {
    available_microcredits: funds.free,
    required_microcredits: hold,
    hint: "Ask an administrator for more, ask for fewer tokens, or wait until running work gives back what it holds.",
  });
}

async function noBudget(
  db: Db,
  { user_id, hold }: NewCall,
  { task_id, attempt }: NonNullable<NewCall["task"]>,
): Promise<AppError> {
  const task = await db
    .selectFrom("tasks")
    .select(["state", "attempt", "cancel_requested_at", "budget_left"])
    .where("id", "=", task_id)
    .where("user_id", "=", user_id)
    .executeTakeFirst();
  if (task === undefined) return taskNotFound(task_id);
  if (task.state !== "running" || task.attempt !== attempt || task.cancel_requested_at !== null) {
    return new AppError("Cancelled", "The task is no longer running.");
  }
  return new AppError("InsufficientBalance", "The task's budget does not cover this call.", {
    available_microcredits: task.budget_left,
    required_microcredits: hold,
    hint: "Split the work into smaller tasks.",
  });
}

export interface Settlement {
  readonly call_id: string;
  readonly input_tokens: number;
  readonly output_tokens: number;
  /** Those of the input the provider had cached. */
  readonly cached_tokens: number;
  /** What the call costs, micro-credits. */
  readonly cost: number;
  /** The provider's own figures, our tokenizer where it gave none, or the local model's own tokenizer. */
  readonly counted_by: "provider" | "tokenizer" | "model";
  /** The route that was called, as in `/v1/chat/completions`. */
  readonly endpoint: string;
}

export interface Settled {
  /** False when it had been settled before: nothing was changed. */
  readonly settled: boolean;
  /** Micro-credits taken, here or then. */
  readonly charged: number;
  /** Micro-credits of the cost that were not there to take. */
  readonly uncollected: number;
}

/**
 * Charge what a call really used and give back the rest of its hold, to its task while that lives, else to the
 * account. May come before or after the task's end, and after a release. Neither the balance nor a budget is
 * overdrawn for a call that cost more than was held for it. @throws AppError NotFound.
 */
export async function settleCall(db: Db, settlement: Settlement): Promise<Settled> {
  const { call_id, input_tokens, output_tokens, cached_tokens, cost, counted_by, endpoint } = settlement;
  const { rows } = await sql<Settled>`
    SELECT settled, charged, uncollected FROM settle_call(${call_id}, ${input_tokens}::integer,
      ${output_tokens}::integer, ${cached_tokens}::integer, ${microcredits("cost", cost)}::bigint,
      ${counted_by}, ${endpoint})`.execute(db);
  const [settled] = rows;
  if (settled === undefined) throw new AppError("NotFound", `There is no call ${call_id}.`);
  return settled;
}

/** Give back what an open call holds: it used nothing. @returns false when it is not open. */
export async function releaseCall(db: Db, call_id: string): Promise<boolean> {
  const { rows } = await sql<{ released: boolean }>`
    SELECT release_call(${call_id}) AS released`.execute(db);
  return rows[0]?.released ?? false;
}

/**
 * Release calls whose process died: those of `instance_id` when given (it is known to be gone, or is starting
 * anew), else those of every instance without a heartbeat.
 * @returns how many.
 */
export async function sweepOpenCalls(
  db: Db,
  { instance_id, older_than_ms }: { instance_id?: string | undefined; older_than_ms: number },
): Promise<number> {
  const whose =
    instance_id === undefined
      ? sql<boolean>`NOT EXISTS (SELECT 1 FROM instances i WHERE i.id = instance_id
          AND i.heartbeat_at > clock_timestamp() - make_interval(secs => ${ALIVE_SECONDS}::float8))`
      : sql<boolean>`instance_id = ${instance_id}`;
  const calls = await db
    .selectFrom("llm_calls")
    .select("id")
    .where("state", "=", "open")
    .where(
      "created_at",
      "<=",
      sql<Date>`clock_timestamp() - make_interval(secs => ${older_than_ms}::float8 / 1000)`,
    )
    .where(whose)
    .limit(SWEEP_LIMIT)
    .execute();
  let released = 0;
  // One transaction each: the locks of several could be taken in another order than somebody else's.
  for (const { id } of calls) if (await releaseCall(db, id)) released += 1;
  return released;
}
