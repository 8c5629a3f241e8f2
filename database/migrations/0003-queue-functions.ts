import { type Kysely, sql } from "kysely";

/**
 * What must see the rows as they are after waiting for a lock lives in the database: each statement of a
 * volatile plpgsql function has its own snapshot, while a single statement that waits goes on with the one
 * it began with (a claim written that way let two tasks of one user run at once).
 *
 * Rows are locked in one order everywhere: task, llm_call, project, user.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
}

const STATEMENTS = [
  // The one place that knows the order of the queue: what claim_task takes and what a waiting user is shown.
  //
  // Within a user: what may start now first, then priority + a point per minute waited. Between users:
  // the same score, but a user's clock starts again whenever a task of theirs starts. So a flood queued
  // earlier cannot keep a newcomer out, and nobody waits for ever. Then fewer running, then least recently
  // served. A retry keeps its turn: it was admitted before.
  `CREATE FUNCTION queue_order(p_moment timestamptz, p_per_user integer, p_seconds_between float8, p_aging float8)
  RETURNS TABLE (task_id text, user_id text, may_start boolean, reason text, place bigint)
  LANGUAGE sql STABLE AS $$
    WITH active AS (
      SELECT t.user_id, count(*)::integer AS running FROM tasks t WHERE t.state = 'running' GROUP BY t.user_id
    ),
    waiting AS (
      SELECT u.user_id, coalesce(a.running, 0) AS running, s.last_started,
        coalesce(s.last_started + make_interval(secs => p_seconds_between) > p_moment, false) AS limited
      FROM (SELECT DISTINCT t.user_id FROM tasks t WHERE t.state = 'pending') u
      LEFT JOIN active a ON a.user_id = u.user_id
      CROSS JOIN LATERAL (SELECT max(t.started_at) AS last_started FROM tasks t WHERE t.user_id = u.user_id) s
    ),
    own AS (
      SELECT t.id, t.user_id, t.attempt, t.priority, t.created_at, w.running, w.last_started, w.limited,
        t.available_at <= p_moment AS due,
        row_number() OVER (PARTITION BY t.user_id ORDER BY
          t.available_at <= p_moment AND (t.attempt > 0 OR NOT w.limited) DESC,
          t.priority + floor(p_aging * extract(epoch FROM p_moment - t.created_at)::float8 / 60) DESC,
          t.created_at, t.id)::integer AS nth
      FROM tasks t JOIN waiting w ON w.user_id = t.user_id
      WHERE t.state = 'pending'
    ),
    judged AS (
      SELECT own.*,
        CASE
          WHEN own.running + own.nth > p_per_user THEN 'user_already_active'
          WHEN own.attempt = 0 AND (own.limited OR (own.nth > 1 AND p_seconds_between > 0))
            THEN 'rate_limit_exceeded'
        END AS obstacle,
        own.priority + CASE WHEN own.nth > 1 THEN 0 ELSE floor(p_aging / 60 * extract(epoch FROM p_moment -
          greatest(own.created_at, CASE WHEN own.attempt = 0 THEN own.last_started END))::float8) END AS score
      FROM own
    ),
    scored AS (
      SELECT judged.*, min(judged.score) OVER (PARTITION BY judged.user_id ORDER BY judged.nth) AS fair_score
      FROM judged
    )
    SELECT s.id, s.user_id, s.due AND s.obstacle IS NULL, s.obstacle,
      row_number() OVER (ORDER BY s.due AND s.obstacle IS NULL DESC, s.fair_score DESC, s.running + s.nth,
        CASE WHEN s.nth > 1 THEN p_moment ELSE s.last_started END NULLS FIRST, s.created_at, s.id)
    FROM scored s
  $$`,
  `CREATE FUNCTION claim_task(p_worker text, p_capacity integer, p_per_user integer, p_seconds_between float8,
    p_lease_ms float8, p_aging float8)
  RETURNS SETOF tasks LANGUAGE plpgsql VOLATILE AS $$
    DECLARE
      moment timestamptz;
      chosen record;
      claimed tasks;
    BEGIN
      IF NOT EXISTS (SELECT 1 FROM tasks WHERE state = 'pending') THEN RETURN; END IF;
      -- Lock first: every statement below then sees what the claimer before us committed.
      PERFORM pg_advisory_xact_lock(hashtext('cds_claim_task'));
      IF (SELECT count(*) FROM tasks WHERE state = 'running' AND worker_id = p_worker) >= p_capacity THEN
        RETURN;
      END IF;
      LOOP
        moment := clock_timestamp();
        SELECT q.task_id, q.user_id INTO chosen
          FROM queue_order(moment, p_per_user, p_seconds_between, p_aging) q
          WHERE q.may_start ORDER BY q.place LIMIT 1;
        IF NOT FOUND THEN RETURN; END IF;
        UPDATE tasks t SET
          state = 'running', attempt = t.attempt + 1, worker_id = p_worker,
          user_slot = (SELECT min(slot) FROM generate_series(0, p_per_user - 1) slot WHERE NOT EXISTS (
            SELECT 1 FROM tasks o WHERE o.user_id = chosen.user_id AND o.state = 'running' AND o.user_slot = slot)),
          lease_until = moment + make_interval(secs => p_lease_ms / 1000),
          started_at = coalesce(t.started_at, moment), last_seq = t.last_seq + 1
          WHERE t.id = chosen.task_id AND t.state = 'pending'
          RETURNING t.* INTO claimed;
        -- Cancelled while we chose it: choose again.
        CONTINUE WHEN NOT FOUND;
        INSERT INTO task_events (task_id, seq, type, data) VALUES (claimed.id, claimed.last_seq, 'state',
          jsonb_build_object('state', 'running', 'attempt', claimed.attempt));
        PERFORM pg_notify('cds_events', claimed.id || ':' || claimed.last_seq);
        RETURN NEXT claimed;
        RETURN;
      END LOOP;
    END $$`,
  // Charges what a call really cost: from its hold, then its task's budget, then the free balance, never more
  // than there is. What remains of the hold goes back where it came from: the task while it lives, else the
  // account. A call that was released first (its process seemed dead) is charged all the same.
  `CREATE FUNCTION settle_call(p_call text, p_input integer, p_output integer, p_cached integer, p_cost bigint,
    p_counted_by text, p_endpoint text)
  RETURNS TABLE (settled boolean, charged bigint, uncollected bigint) LANGUAGE plpgsql VOLATILE AS $$
    DECLARE
      spent llm_calls;
      work tasks;
      free bigint;
      alive boolean;
      reserved bigint;
      from_hold bigint;
      from_budget bigint;
      from_free bigint;
    BEGIN
      SELECT * INTO spent FROM llm_calls WHERE id = p_call;
      IF NOT FOUND THEN RETURN; END IF;
      SELECT * INTO work FROM tasks WHERE id = spent.task_id FOR NO KEY UPDATE;
      SELECT * INTO spent FROM llm_calls WHERE id = p_call FOR NO KEY UPDATE;
      IF spent.state = 'settled' THEN
        RETURN QUERY SELECT false, u.cost_microcredits, 0::bigint FROM tokens_used u WHERE u.call_id = p_call;
        RETURN;
      END IF;
      SELECT token_balance - token_held INTO free FROM users WHERE id = spent.user_id FOR NO KEY UPDATE;
      alive := coalesce(work.state IN ('pending', 'running'), false);
      reserved := CASE spent.state WHEN 'open' THEN spent.hold_microcredits ELSE 0 END;
      from_hold := least(p_cost, reserved);
      from_budget := CASE WHEN alive THEN least(p_cost - from_hold, work.budget_left) ELSE 0 END;
      from_free := least(p_cost - from_hold - from_budget, free);
      charged := from_hold + from_budget + from_free;
      uncollected := p_cost - charged;
      settled := true;
      IF alive THEN
        UPDATE tasks SET budget_left = budget_left + reserved - from_hold - from_budget WHERE id = work.id;
        reserved := from_hold + from_budget;
      END IF;
      UPDATE users SET token_balance = token_balance - charged, token_held = token_held - reserved
        WHERE id = spent.user_id;
      UPDATE llm_calls SET state = 'settled', finished_at = clock_timestamp() WHERE id = p_call;
      INSERT INTO tokens_used (call_id, user_id, model_id, endpoint, task_id, input_tokens, output_tokens,
        cached_tokens, cost_microcredits, counted_by)
        VALUES (p_call, spent.user_id, spent.model, p_endpoint, spent.task_id, p_input, p_output, p_cached, charged,
          p_counted_by);
      INSERT INTO ledger_entries (user_id, kind, balance_delta, held_delta, task_id, call_id, note, idempotency_key)
        VALUES (spent.user_id, 'settle', -charged, -reserved, spent.task_id, p_call,
          CASE WHEN uncollected > 0 THEN 'uncollected ' || uncollected || ' of ' || p_cost END,
          'call:' || p_call || ':settle');
      RETURN NEXT;
    END $$`,
  `CREATE FUNCTION release_call(p_call text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
    DECLARE
      spent llm_calls;
      work tasks;
    BEGIN
      SELECT * INTO spent FROM llm_calls WHERE id = p_call;
      IF NOT FOUND THEN RETURN false; END IF;
      SELECT * INTO work FROM tasks WHERE id = spent.task_id FOR NO KEY UPDATE;
      UPDATE llm_calls SET state = 'released', finished_at = clock_timestamp() WHERE id = p_call AND state = 'open';
      IF NOT FOUND THEN RETURN false; END IF;
      IF work.state IN ('pending', 'running') THEN
        UPDATE tasks SET budget_left = budget_left + spent.hold_microcredits WHERE id = work.id;
      ELSIF spent.hold_microcredits > 0 THEN
        UPDATE users SET token_held = token_held - spent.hold_microcredits WHERE id = spent.user_id;
        INSERT INTO ledger_entries (user_id, kind, balance_delta, held_delta, task_id, call_id, idempotency_key)
          VALUES (spent.user_id, 'release', 0, -spent.hold_microcredits, spent.task_id, p_call,
            'call:' || p_call || ':release');
      END IF;
      RETURN true;
    END $$`,
];
