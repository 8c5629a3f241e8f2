import { sql } from "kysely";
import type { TaskContext } from "#schemas";
import { toJsonb } from "../events/jsonb.ts";
import type { Db, TaskRow } from "../schema.ts";
import { QUEUE_CHANNEL } from "./channels.ts";

/** What a task may be given besides its prompt. */
export interface TaskExtras {
  /** The user's own task of the same project whose session goes on; it has ended. */
  readonly continues?: string | undefined;
  /** What the user looks at. */
  readonly context?: TaskContext | undefined;
  /** Ids of changes to start from, the first undermost. */
  readonly builds_on?: readonly string[] | undefined;
  /** Id of the change whose conflicts it resolves. */
  readonly resolves?: string | undefined;
  /** Hosts its programs may reach, `host:port`. */
  readonly network?: readonly string[] | undefined;
  /** Its agent may make a plan of further steps. */
  readonly may_plan?: boolean | undefined;
  /** The project's own configuration for agents' programs is let in. */
  readonly agent_config?: boolean | undefined;
}

/** What every task has. */
export interface TaskCore extends TaskExtras {
  readonly id: string;
  readonly user_id: string;
  readonly project_id: string;
  readonly agent: string;
  readonly runner: string;
  readonly model: string;
  readonly prompt: string;
  /** 1 (may wait) .. 9 (first). */
  readonly priority: number;
  readonly max_attempts: number;
  /** The same key of the same user answers the first task again. */
  readonly idempotency_key?: string | undefined;
}

/** A task to be written down as it is. */
export interface TaskToInsert extends TaskCore {
  /** Micro-credits to hold. */
  readonly held: number;
  readonly place?: { readonly plan_id: string; readonly step: string; readonly nth: number } | undefined;
  /** Not in the line until the steps before it have completed. */
  readonly blocked?: boolean;
}

/** Write a waiting task with its hold and its first event. The account's row is locked. */
export async function insertTask(trx: Db, task: TaskToInsert): Promise<TaskRow> {
  const { held, place, context } = task;
  const { rows } = await sql<TaskRow & { announced: unknown }>`
    WITH t AS (
      INSERT INTO tasks (id, user_id, project_id, agent, runner, model, prompt, priority, max_attempts,
        budget_microcredits, budget_left, idempotency_key, last_seq, plan_id, step, step_nth, blocked, continues,
        context, builds_on, resolves, network, may_plan, agent_config)
      VALUES (${task.id}, ${task.user_id}, ${task.project_id}, ${task.agent}, ${task.runner}, ${task.model},
        ${task.prompt}, ${task.priority}, ${task.max_attempts}, ${held}::bigint, ${held}::bigint,
        ${task.idempotency_key ?? null}, 1, ${place?.plan_id ?? null}, ${place?.step ?? null},
        ${place?.nth ?? null}, ${task.blocked ?? false}, ${task.continues ?? null},
        ${context === undefined ? null : toJsonb(context)}::jsonb, ${[...(task.builds_on ?? [])]}::text[],
        ${task.resolves ?? null}, ${[...(task.network ?? [])]}::text[], ${task.may_plan ?? false},
        ${task.agent_config ?? false})
      RETURNING *
    ), u AS (
      UPDATE users SET token_held = token_held + ${held}::bigint WHERE id = ${task.user_id}
    ), l AS (
      INSERT INTO ledger_entries (user_id, kind, balance_delta, held_delta, task_id, idempotency_key)
      SELECT user_id, 'hold', 0, budget_left, id, 'task:' || id || ':hold' FROM t WHERE budget_left > 0
    ), e AS (
      INSERT INTO task_events (task_id, seq, type, data) SELECT id, 1, 'state', '{"state":"pending"}' FROM t
    )
    SELECT t.*, pg_notify(${QUEUE_CHANNEL}, '') AS announced FROM t`.execute(trx);
  const [row] = rows;
  if (row === undefined) throw new Error("INSERT ... RETURNING gave no row");
  const { announced: _, ...inserted } = row;
  return inserted;
}
