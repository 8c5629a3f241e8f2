import { type Kysely, sql } from "kysely";

/** Accounts, projects, queue, ledger and events: the tables of the main job. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
}

const STATEMENTS = [
  // --- accounts (US-1) -------------------------------------------------------------------------
  `CREATE TABLE users (
    id text PRIMARY KEY,
    username text NOT NULL,
    email text,
    password_hash text NOT NULL,
    role text NOT NULL CHECK (role IN ('admin', 'developer', 'viewer')),
    api_key_hash bytea UNIQUE,
    -- Micro-credits; the cached sums of ledger_entries, changed only in the statement that appends there.
    token_balance bigint NOT NULL DEFAULT 0 CHECK (token_balance >= 0),
    token_held bigint NOT NULL DEFAULT 0 CHECK (token_held >= 0),
    -- Raised to end every access token issued before.
    token_version integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (token_held <= token_balance)
  )`,
  `CREATE UNIQUE INDEX users_username ON users (lower(username))`,
  `CREATE TABLE refresh_tokens (
    token_hash bytea PRIMARY KEY,
    family_id text NOT NULL,
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    revoked_at timestamptz
  )`,
  `CREATE INDEX refresh_tokens_family ON refresh_tokens (family_id)`,
  `CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id)`,
  `CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at)`,
  `CREATE TABLE providers (
    user_id text PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    base_url text NOT NULL,
    api_key_encrypted bytea,
    models text[] NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT now()
  )`,
  `CREATE TABLE models (
    name text PRIMARY KEY,
    huggingface_url text,
    context_size integer,
    -- Micro-credits per million tokens; a model without a row costs the server's default.
    input_cost_per_million bigint NOT NULL,
    output_cost_per_million bigint NOT NULL,
    is_loaded boolean NOT NULL DEFAULT false
  )`,
  // --- projects --------------------------------------------------------------------------------
  `CREATE TABLE projects (
    id text PRIMARY KEY,
    owner_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    name text NOT NULL,
    head_revision integer NOT NULL DEFAULT 0,
    file_count integer NOT NULL DEFAULT 0,
    size_bytes bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
  )`,
  `CREATE INDEX projects_owner ON projects (owner_id, created_at DESC, id DESC)`,
  `CREATE TABLE blobs (
    hash bytea PRIMARY KEY,
    size integer NOT NULL,
    content bytea NOT NULL
  )`,
  `CREATE TABLE project_files (
    project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
    path text COLLATE "C" NOT NULL,
    blob_hash bytea NOT NULL REFERENCES blobs,
    size integer NOT NULL,
    executable boolean NOT NULL DEFAULT false,
    revision integer NOT NULL,
    PRIMARY KEY (project_id, path)
  )`,
  `CREATE TABLE revisions (
    project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
    revision integer NOT NULL,
    author text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('edit', 'agent', 'import', 'rollback')),
    summary text NOT NULL,
    change_id text,
    files integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, revision)
  )`,
  // A row = what one revision made of one path; a null blob = it was deleted there.
  `CREATE TABLE revision_files (
    project_id text NOT NULL,
    path text COLLATE "C" NOT NULL,
    revision integer NOT NULL,
    blob_hash bytea REFERENCES blobs,
    size integer NOT NULL DEFAULT 0,
    executable boolean NOT NULL DEFAULT false,
    PRIMARY KEY (project_id, path, revision),
    FOREIGN KEY (project_id, revision) REFERENCES revisions ON DELETE CASCADE
  )`,
  `CREATE INDEX revision_files_revision ON revision_files (project_id, revision)`,
  `CREATE TABLE changes (
    id text PRIMARY KEY,
    project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
    task_id text,
    author text NOT NULL,
    base_revision integer NOT NULL,
    summary text NOT NULL,
    state text NOT NULL DEFAULT 'proposed' CHECK (state IN ('proposed', 'accepted', 'rejected')),
    revision integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    decided_at timestamptz,
    decided_by text
  )`,
  `CREATE INDEX changes_project ON changes (project_id, created_at DESC, id DESC)`,
  `CREATE INDEX changes_task ON changes (task_id)`,
  `CREATE TABLE change_files (
    change_id text NOT NULL REFERENCES changes ON DELETE CASCADE,
    path text COLLATE "C" NOT NULL,
    base_hash bytea REFERENCES blobs,
    new_hash bytea REFERENCES blobs,
    executable boolean NOT NULL DEFAULT false,
    PRIMARY KEY (change_id, path)
  )`,
  // --- queue -----------------------------------------------------------------------------------
  `CREATE TABLE tasks (
    id text PRIMARY KEY,
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    -- No reference: the record of what ran and what it cost outlives the project.
    project_id text NOT NULL,
    agent text NOT NULL,
    runner text NOT NULL,
    model text NOT NULL,
    prompt text NOT NULL,
    priority smallint NOT NULL DEFAULT 5,
    state text NOT NULL DEFAULT 'pending'
      CHECK (state IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    -- The fencing token: raised by every claim, checked by every later write.
    attempt integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL,
    -- Which of its user's parallel places a running task holds, 0 .. per-user limit - 1.
    user_slot smallint,
    worker_id text,
    lease_until timestamptz,
    available_at timestamptz NOT NULL DEFAULT now(),
    cancel_requested_at timestamptz,
    base_revision integer,
    change_id text,
    error jsonb,
    -- Micro-credits held for the task and not yet spent or reserved by a call in flight.
    budget_microcredits bigint NOT NULL DEFAULT 0,
    budget_left bigint NOT NULL DEFAULT 0 CHECK (budget_left >= 0),
    last_seq integer NOT NULL DEFAULT 0,
    idempotency_key text,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz
  )`,
  `CREATE UNIQUE INDEX tasks_one_per_slot ON tasks (user_id, user_slot) WHERE state = 'running'`,
  `CREATE UNIQUE INDEX tasks_idempotency ON tasks (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL`,
  `CREATE INDEX tasks_pending ON tasks (priority DESC, created_at) WHERE state = 'pending'`,
  `CREATE INDEX tasks_running ON tasks (lease_until) WHERE state = 'running'`,
  `CREATE INDEX tasks_user ON tasks (user_id, created_at DESC, id DESC)`,
  `CREATE INDEX tasks_user_started ON tasks (user_id, started_at DESC)`,
  `CREATE INDEX tasks_project ON tasks (project_id, created_at DESC)`,
  `CREATE TABLE instances (
    id text PRIMARY KEY,
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    capacity integer NOT NULL,
    -- Why this instance takes no task at present: a memory or disk threshold.
    blocked_reason text
  )`,
  // --- events ----------------------------------------------------------------------------------
  `CREATE TABLE task_events (
    task_id text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    seq integer NOT NULL,
    type text NOT NULL,
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task_id, seq)
  )`,
  // --- ledger ----------------------------------------------------------------------------------
  `CREATE TABLE ledger_entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('grant', 'hold', 'settle', 'release')),
    balance_delta bigint NOT NULL,
    held_delta bigint NOT NULL,
    task_id text,
    call_id text,
    note text,
    idempotency_key text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
  )`,
  `CREATE INDEX ledger_user ON ledger_entries (user_id, id DESC)`,
  `CREATE INDEX ledger_task ON ledger_entries (task_id, id) WHERE task_id IS NOT NULL`,
  `CREATE TABLE llm_calls (
    id text PRIMARY KEY,
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    task_id text,
    attempt integer,
    model text NOT NULL,
    instance_id text NOT NULL,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'settled', 'released')),
    hold_microcredits bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
  )`,
  `CREATE INDEX llm_calls_open ON llm_calls (created_at) WHERE state = 'open'`,
  `CREATE INDEX llm_calls_task ON llm_calls (task_id) WHERE task_id IS NOT NULL`,
  `CREATE TABLE tokens_used (
    call_id text PRIMARY KEY REFERENCES llm_calls ON DELETE CASCADE,
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    model_id text NOT NULL,
    endpoint text NOT NULL,
    task_id text,
    input_tokens integer NOT NULL,
    output_tokens integer NOT NULL,
    cached_tokens integer NOT NULL DEFAULT 0,
    cost_microcredits bigint NOT NULL,
    -- Who counted: the provider's own figures, or our tokenizer where it gave none.
    counted_by text NOT NULL CHECK (counted_by IN ('provider', 'tokenizer')),
    created_at timestamptz NOT NULL DEFAULT now()
  )`,
  `CREATE INDEX tokens_used_user ON tokens_used (user_id, created_at DESC)`,
  `CREATE INDEX tokens_used_model ON tokens_used (model_id, created_at DESC)`,
  `CREATE INDEX tokens_used_time ON tokens_used (created_at)`,
  `CREATE INDEX tokens_used_task ON tokens_used (task_id) WHERE task_id IS NOT NULL`,
  // Ledger and events are only ever appended to: a bug that tries otherwise fails here, not in an audit.
  `CREATE FUNCTION refuse_update() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$`,
  `CREATE TRIGGER ledger_entries_append_only BEFORE UPDATE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION refuse_update()`,
  `CREATE TRIGGER task_events_append_only BEFORE UPDATE ON task_events
    FOR EACH ROW EXECUTE FUNCTION refuse_update()`,
];
