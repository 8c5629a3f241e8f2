import { type Kysely, sql } from "kysely";

/** Prices of cached input, budgets of users and projects, and what showing money over time needs. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
}

const STATEMENTS = [
  // --- prices ----------------------------------------------------------------------------------
  // Null = the server's default: a row may be there for other reasons than a price.
  `ALTER TABLE models
    ALTER COLUMN input_cost_per_million DROP NOT NULL,
    ALTER COLUMN output_cost_per_million DROP NOT NULL,
    ADD COLUMN cached_cost_per_million bigint,
    -- Holds reckon without a cache, so that one must never make a call dearer.
    ADD CONSTRAINT models_cached_cost CHECK (cached_cost_per_million IS NULL OR
      (input_cost_per_million IS NOT NULL AND cached_cost_per_million <= input_cost_per_million))`,
  // A local model counts with its own tokenizer.
  `ALTER TABLE tokens_used DROP CONSTRAINT tokens_used_counted_by_check,
    ADD CONSTRAINT tokens_used_counted_by_check CHECK (counted_by IN ('provider', 'tokenizer', 'model'))`,

  // --- budgets ---------------------------------------------------------------------------------
  // When a budget's present period began; a month is one of the calendar, in UTC.
  `CREATE FUNCTION budget_start(p_period text, p_moment timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE p_period WHEN 'month' THEN date_trunc('month', p_moment, 'UTC') ELSE timestamptz 'epoch' END
  $$`,
  // What is spent of it; what was spent in an earlier period does not count.
  `CREATE FUNCTION budget_spent(p_period text, p_since timestamptz, p_spent bigint, p_moment timestamptz)
  RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p_since < budget_start(p_period, p_moment) THEN 0 ELSE p_spent END
  $$`,
  ...["users", "projects"].map(
    (table) => `ALTER TABLE ${table}
      ADD COLUMN budget_limit bigint CHECK (budget_limit >= 0),
      ADD COLUMN budget_period text NOT NULL DEFAULT 'month' CHECK (budget_period IN ('month', 'total')),
      -- The sum of tokens_used since spent_since, changed only by settle_call and when the budget is set.
      ADD COLUMN spent_microcredits bigint NOT NULL DEFAULT 0 CHECK (spent_microcredits >= 0),
      ADD COLUMN spent_since timestamptz NOT NULL DEFAULT date_trunc('month', now(), 'UTC')`,
  ),
  `UPDATE users SET spent_microcredits = used.cost FROM (
    SELECT user_id, sum(cost_microcredits) AS cost FROM tokens_used
    WHERE created_at >= budget_start('month', now()) GROUP BY user_id
  ) used WHERE used.user_id = users.id`,
  `UPDATE projects SET spent_microcredits = used.cost FROM (
    SELECT t.project_id, sum(u.cost_microcredits) AS cost FROM tokens_used u JOIN tasks t ON t.id = u.task_id
    WHERE u.created_at >= budget_start('month', now()) GROUP BY t.project_id
  ) used WHERE used.project_id = projects.id`,
  `CREATE INDEX tasks_project_alive ON tasks (project_id) WHERE state IN ('pending', 'running')`,
  `CREATE INDEX llm_calls_open_task ON llm_calls (task_id) WHERE state = 'open' AND task_id IS NOT NULL`,
  // What a project's work has set aside: its living tasks' budgets and its open calls, also those of ended tasks.
  `CREATE FUNCTION project_held(p_project text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (
      coalesce((SELECT sum(budget_left) FROM tasks
        WHERE project_id = p_project AND state IN ('pending', 'running')), 0) +
      coalesce((SELECT sum(c.hold_microcredits) FROM llm_calls c JOIN tasks t ON t.id = c.task_id
        WHERE t.project_id = p_project AND c.state = 'open' AND c.task_id IS NOT NULL), 0)
    )::bigint
  $$`,
  // As before, and: what a call costs beyond its hold and its task's budget is taken only as far as the budgets of
  // user and project leave room, and both know what was spent. The moment is read under the locks, so that of two
  // calls of one month's last second none counts in another month than the sum it is added to.
  `CREATE OR REPLACE FUNCTION settle_call(p_call text, p_input integer, p_output integer, p_cached integer,
    p_cost bigint, p_counted_by text, p_endpoint text)
  RETURNS TABLE (settled boolean, charged bigint, uncollected bigint) LANGUAGE plpgsql VOLATILE AS $$
    DECLARE
      spent llm_calls;
      work tasks;
      home projects;
      payer users;
      moment timestamptz;
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
      SELECT * INTO home FROM projects WHERE id = work.project_id FOR NO KEY UPDATE;
      SELECT * INTO payer FROM users WHERE id = spent.user_id FOR NO KEY UPDATE;
      moment := clock_timestamp();
      alive := coalesce(work.state IN ('pending', 'running'), false);
      reserved := CASE spent.state WHEN 'open' THEN spent.hold_microcredits ELSE 0 END;
      from_hold := least(p_cost, reserved);
      from_budget := CASE WHEN alive THEN least(p_cost - from_hold, work.budget_left) ELSE 0 END;
      from_free := p_cost - from_hold - from_budget;
      IF from_free > 0 THEN
        -- A limit that is null limits nothing: least() passes over it.
        from_free := greatest(0, least(from_free, payer.token_balance - payer.token_held,
          payer.budget_limit - payer.token_held -
            budget_spent(payer.budget_period, payer.spent_since, payer.spent_microcredits, moment)));
        IF home.budget_limit IS NOT NULL THEN
          from_free := greatest(0, least(from_free, home.budget_limit - project_held(home.id) -
            budget_spent(home.budget_period, home.spent_since, home.spent_microcredits, moment)));
        END IF;
      END IF;
      charged := from_hold + from_budget + from_free;
      uncollected := p_cost - charged;
      settled := true;
      IF alive THEN
        UPDATE tasks SET budget_left = budget_left + reserved - from_hold - from_budget WHERE id = work.id;
        reserved := from_hold + from_budget;
      END IF;
      IF home.id IS NOT NULL THEN
        UPDATE projects SET spent_since = greatest(spent_since, budget_start(budget_period, moment)),
          spent_microcredits = charged + budget_spent(budget_period, spent_since, spent_microcredits, moment)
          WHERE id = home.id;
      END IF;
      UPDATE users SET token_balance = token_balance - charged, token_held = token_held - reserved,
        spent_since = greatest(spent_since, budget_start(budget_period, moment)),
        spent_microcredits = charged + budget_spent(budget_period, spent_since, spent_microcredits, moment)
        WHERE id = spent.user_id;
      UPDATE llm_calls SET state = 'settled', finished_at = moment WHERE id = p_call;
      INSERT INTO tokens_used (call_id, user_id, model_id, endpoint, task_id, input_tokens, output_tokens,
        cached_tokens, cost_microcredits, counted_by, created_at)
        VALUES (p_call, spent.user_id, spent.model, p_endpoint, spent.task_id, p_input, p_output, p_cached, charged,
          p_counted_by, moment);
      INSERT INTO ledger_entries (user_id, kind, balance_delta, held_delta, task_id, call_id, note, idempotency_key,
        created_at)
        VALUES (spent.user_id, 'settle', -charged, -reserved, spent.task_id, p_call,
          CASE WHEN uncollected > 0 THEN 'uncollected ' || uncollected || ' of ' || p_cost END,
          'call:' || p_call || ':settle', moment);
      RETURN NEXT;
    END $$`,

  // --- history ---------------------------------------------------------------------------------
  // Calls newest first, page by page; of one model too. The first replaces the index without the call's id.
  `DROP INDEX tokens_used_user`,
  `CREATE INDEX tokens_used_user ON tokens_used (user_id, created_at DESC, call_id DESC)`,
  `CREATE INDEX tokens_used_user_model ON tokens_used (user_id, model_id, created_at DESC, call_id DESC)`,
  // What changed a balance since an entry, or since a moment, without reading the rows: holds change none.
  `CREATE INDEX ledger_balance ON ledger_entries (user_id, id) INCLUDE (balance_delta) WHERE balance_delta <> 0`,
  `CREATE INDEX ledger_balance_time ON ledger_entries (user_id, created_at) INCLUDE (balance_delta, kind)
    WHERE balance_delta <> 0`,
];
