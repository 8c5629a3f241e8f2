import { type Kysely, sql } from "kysely";

/** Tasks that are steps of a plan, that rest, that go on from one another, and what they were granted. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
}

const STATEMENTS = [
  // Its row is the lock of all that its steps do to each other, taken before any task's: plan, task, llm_call,
  // project, user.
  `CREATE TABLE plans (
    id text PRIMARY KEY,
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    project_id text NOT NULL,
    -- What it was made from, to know a repeat from another plan with the same key.
    fingerprint text,
    idempotency_key text,
    created_at timestamptz NOT NULL DEFAULT now()
  )`,
  `CREATE UNIQUE INDEX plans_idempotency ON plans (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL`,
  `ALTER TABLE tasks
    ADD COLUMN plan_id text REFERENCES plans ON DELETE CASCADE,
    ADD COLUMN step text,
    -- Its place among the plan's steps as they were given, from 0.
    ADD COLUMN step_nth integer,
    -- Steps before it have not completed: not in the line.
    ADD COLUMN blocked boolean NOT NULL DEFAULT false,
    -- Not in the line, or held at its next model call.
    ADD COLUMN paused_at timestamptz,
    -- The task whose session goes on here.
    ADD COLUMN continues text,
    ADD COLUMN context jsonb,
    -- Changes whose files lie over the project's when it starts.
    ADD COLUMN builds_on text[] NOT NULL DEFAULT '{}',
    -- The change whose conflicts it resolves.
    ADD COLUMN resolves text,
    -- Hosts its programs may reach, host:port.
    ADD COLUMN network text[] NOT NULL DEFAULT '{}',
    ADD COLUMN may_plan boolean NOT NULL DEFAULT false`,
  `CREATE UNIQUE INDEX tasks_step ON tasks (plan_id, step) WHERE plan_id IS NOT NULL`,
  `CREATE TABLE task_dependencies (
    task_id text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    depends_on text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    PRIMARY KEY (task_id, depends_on)
  )`,
  `CREATE INDEX task_dependencies_depends_on ON task_dependencies (depends_on)`,
  // As before, but for what is blocked or paused: that is not in the line.
  `CREATE OR REPLACE FUNCTION queue_line(p_moment timestamptz, p_per_user integer, p_seconds_between float8,
    p_aging float8, p_startable boolean)
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
        FROM tasks t WHERE t.state = 'pending' AND NOT t.blocked AND t.paused_at IS NULL GROUP BY t.user_id
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
  // As before, and one that was paused while it was chosen is not taken.
  `CREATE OR REPLACE FUNCTION claim_task(p_worker text, p_capacity integer, p_per_user integer,
    p_seconds_between float8, p_lease_ms float8, p_aging float8)
  RETURNS SETOF tasks LANGUAGE plpgsql VOLATILE AS $$
    DECLARE
      moment timestamptz;
      chosen record;
      claimed tasks;
    BEGIN
      IF NOT EXISTS (SELECT 1 FROM tasks WHERE state = 'pending' AND NOT blocked AND paused_at IS NULL) THEN
        RETURN;
      END IF;
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
          WHERE t.id = chosen.task_id AND t.state = 'pending' AND t.paused_at IS NULL
          RETURNING t.* INTO claimed;
        -- Cancelled or paused while we chose it: choose again.
        CONTINUE WHEN NOT FOUND;
        INSERT INTO task_events (task_id, seq, type, data) VALUES (claimed.id, claimed.last_seq, 'state',
          jsonb_build_object('state', 'running', 'attempt', claimed.attempt));
        PERFORM pg_notify('cds_events', claimed.id || ':' || claimed.last_seq);
        RETURN NEXT claimed;
        RETURN;
      END LOOP;
    END $$`,
];
