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
  // The waiting tasks, judged. Within a user (nth): what may start now first, then priority + a point per minute
  // waited. Between users (score): the same, but a user's clock starts again whenever a task of theirs starts.
  // So a flood queued earlier cannot keep a newcomer out, and nobody waits for ever. A retry keeps its turn and
  // is not rate limited: it was admitted before.
  //
  // Users are grouped and taken apart again instead of joined: right after a burst the planner knows nothing of
  // the rows and would choose nested loops (250 waiting tasks: 11 ms instead of 2).
  `CREATE FUNCTION queue_line(p_moment timestamptz, p_per_user integer, p_seconds_between float8, p_aging float8,
    p_startable boolean)
  RETURNS TABLE (task_id text, user_id text, created_at timestamptz, running integer, last_started timestamptz,
    nth integer, may_start boolean, obstacle text, score float8)
  LANGUAGE sql STABLE AS $$
    WITH owners AS (
      SELECT g.*, s.last_started, a.running,
        coalesce(s.last_started + make_interval(secs => p_seconds_between) > p_moment, false) AS limited
      FROM (
        SELECT t.user_id, array_agg(t.id) AS ids, array_agg(t.attempt) AS attempts,
          array_agg(t.priority) AS priorities, array_agg(t.created_at) AS created,
          array_agg(t.available_at <= p_moment) AS dues
        FROM tasks t WHERE t.state = 'pending' GROUP BY t.user_id
      ) g
      CROSS JOIN LATERAL (SELECT count(*)::integer AS running FROM tasks t
        WHERE t.user_id = g.user_id AND t.state = 'running') a
      CROSS JOIN LATERAL (SELECT max(t.started_at) AS last_started FROM tasks t WHERE t.user_id = g.user_id) s
      WHERE NOT p_startable OR a.running < p_per_user
    ),
    own AS (
      SELECT o.user_id, o.running, o.last_started, o.limited, t.*,
        row_number() OVER (PARTITION BY o.user_id ORDER BY
          t.due AND (t.attempt > 0 OR NOT o.limited) DESC,
          t.priority + floor(p_aging / 60 * extract(epoch FROM p_moment - t.created_at)::float8) DESC,
          t.created_at, t.id)::integer AS nth
      FROM owners o, unnest(o.ids, o.attempts, o.priorities, o.created, o.dues)
        AS t(id, attempt, priority, created_at, due)
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
      WHERE NOT p_startable OR own.nth = 1
    )
    SELECT j.id, j.user_id, j.created_at, j.running, j.last_started, j.nth, j.due AND j.obstacle IS NULL,
      j.obstacle, j.score
    FROM judged j
  $$`,
  // Everybody's place in the order in which claim_task takes them. After a user's first task the others come as
  // they will when it has started: fresh clock, one more running, served a moment ago.
  `CREATE FUNCTION queue_order(p_moment timestamptz, p_per_user integer, p_seconds_between float8, p_aging float8)
  RETURNS TABLE (task_id text, reason text, place bigint)
  LANGUAGE sql STABLE AS $$
    SELECT s.task_id, s.obstacle,
      row_number() OVER (ORDER BY s.may_start DESC, s.fair_score DESC, s.running + s.nth,
        CASE WHEN s.nth > 1 THEN p_moment ELSE s.last_started END NULLS FIRST, s.created_at, s.task_id)
    FROM (
      SELECT l.*, min(l.score) OVER (PARTITION BY l.user_id ORDER BY l.nth) AS fair_score
      FROM queue_line(p_moment, p_per_user, p_seconds_between, p_aging, false) l
    ) s
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
        SELECT l.task_id, l.user_id INTO chosen
          FROM queue_line(moment, p_per_user, p_seconds_between, p_aging, true) l
          WHERE l.may_start ORDER BY l.score DESC, l.running, l.last_started NULLS FIRST, l.created_at, l.task_id
          LIMIT 1;
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
