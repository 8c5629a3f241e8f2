import type { ColumnType, Generated, Insertable, Kysely, Selectable } from "kysely";
import type { TaskContext, TaskError } from "#schemas";

/**
 * The tables as Kysely sees them, one interface per table of `migrations/`.
 * bigint columns arrive as safe integers (open.ts refuses others), timestamptz as Date, bytea as Buffer.
 */
export interface Schema {
  users: UsersTable;
  refresh_tokens: RefreshTokensTable;
  providers: ProvidersTable;
  models: ModelsTable;
  projects: ProjectsTable;
  blobs: BlobsTable;
  project_files: ProjectFilesTable;
  revisions: RevisionsTable;
  revision_files: RevisionFilesTable;
  changes: ChangesTable;
  change_files: ChangeFilesTable;
  tasks: TasksTable;
  plans: PlansTable;
  task_dependencies: TaskDependenciesTable;
  instances: InstancesTable;
  task_events: TaskEventsTable;
  ledger_entries: LedgerEntriesTable;
  llm_calls: LlmCallsTable;
  tokens_used: TokensUsedTable;
  vm_snapshots: VmSnapshotsTable;
}

/** What every query function takes first: the pool or a transaction of it. */
export type Db = Kysely<Schema>;

/** Filled by the database with now() unless given. */
type CreatedAt = ColumnType<Date, Date | undefined, never>;
type UpdatedAt = ColumnType<Date, Date | undefined, Date>;
/** A jsonb column: objects come out, JSON text goes in (`JSON.stringify`). */
type Json<T> = ColumnType<T, string, string>;
type Append<T> = ColumnType<T, T, never>;
type AppendNullable<T> = ColumnType<T | null, T | null | undefined, never>;

export interface UsersTable {
  id: string;
  username: string;
  email: string | null;
  password_hash: string;
  role: "admin" | "developer" | "viewer";
  api_key_hash: Buffer | null;
  token_balance: Generated<number>;
  token_held: Generated<number>;
  token_version: Generated<number>;
  /** Micro-credits the user may spend in a period at most; null = no limit. */
  budget_limit: number | null;
  budget_period: Generated<"month" | "total">;
  /** Spent since `spent_since`, which may be in an earlier period: then it is nothing in the present one. */
  spent_microcredits: Generated<number>;
  spent_since: Generated<Date>;
  created_at: CreatedAt;
  updated_at: UpdatedAt;
}
export type UserRow = Selectable<UsersTable>;

export interface RefreshTokensTable {
  token_hash: Buffer;
  family_id: string;
  user_id: string;
  created_at: CreatedAt;
  expires_at: Date;
  used_at: Date | null;
  revoked_at: Date | null;
}

export interface ProvidersTable {
  user_id: string;
  base_url: string;
  api_key_encrypted: Buffer | null;
  models: Generated<string[]>;
  updated_at: UpdatedAt;
}
export type ProviderRow = Selectable<ProvidersTable>;

export interface ModelsTable {
  name: string;
  huggingface_url: string | null;
  context_size: number | null;
  /** Micro-credits; null where the model costs the server's default. */
  input_cost_per_million: number | null;
  /** Null where cached input costs what other input does. */
  cached_cost_per_million: number | null;
  output_cost_per_million: number | null;
  is_loaded: Generated<boolean>;
  /** Below the models directory; null where it is not installed. */
  file: string | null;
  kind: "chat" | "embedding" | null;
  size_bytes: number | null;
  sha256: string | null;
  load_config: ColumnType<Record<string, unknown>, string | undefined, string>;
  enabled: Generated<boolean>;
  added_at: Date | null;
}
export type ModelRow = Selectable<ModelsTable>;

export interface ProjectsTable {
  id: string;
  owner_id: string;
  name: string;
  head_revision: Generated<number>;
  file_count: Generated<number>;
  size_bytes: Generated<number>;
  /** Bytes of all contents it has ever had, each once. */
  history_bytes: Generated<number>;
  /** As a user's. */
  budget_limit: number | null;
  budget_period: Generated<"month" | "total">;
  spent_microcredits: Generated<number>;
  spent_since: Generated<Date>;
  created_at: CreatedAt;
  updated_at: UpdatedAt;
}
export type ProjectRow = Selectable<ProjectsTable>;

export interface BlobsTable {
  hash: Buffer;
  size: number;
  content: Buffer;
  touched_at: Generated<Date>;
}

export interface ProjectFilesTable {
  project_id: string;
  path: string;
  blob_hash: Buffer;
  size: number;
  executable: Generated<boolean>;
  revision: number;
}

export interface RevisionsTable {
  project_id: string;
  revision: number;
  author: string;
  kind: "edit" | "agent" | "import" | "rollback" | "run";
  summary: string;
  change_id: string | null;
  files: number;
  created_at: CreatedAt;
}
export type RevisionRow = Selectable<RevisionsTable>;

export interface RevisionFilesTable {
  project_id: string;
  path: string;
  revision: number;
  blob_hash: Buffer | null;
  size: Generated<number>;
  executable: Generated<boolean>;
}

export interface ChangesTable {
  id: string;
  project_id: string;
  task_id: string | null;
  author: string;
  base_revision: number;
  summary: string;
  state: Generated<"proposed" | "accepted" | "rejected">;
  revision: number | null;
  created_at: CreatedAt;
  decided_at: Date | null;
  decided_by: string | null;
  /** Changes accepted together with it: its files are made over theirs. */
  builds_on: Generated<string[]>;
  /** The change it replaces, rejected when it is accepted. */
  resolves: string | null;
  /** The revision it undoes. */
  reverts: number | null;
  /** The change of which a part was accepted; this one holds what was left. */
  rest_of: string | null;
}
export type ChangeRow = Selectable<ChangesTable>;

export interface ChangeFilesTable {
  change_id: string;
  path: string;
  base_hash: Buffer | null;
  new_hash: Buffer | null;
  executable: Generated<boolean>;
}

export interface TasksTable {
  id: string;
  user_id: string;
  project_id: string;
  agent: string;
  runner: string;
  model: string;
  prompt: string;
  priority: Generated<number>;
  state: Generated<"pending" | "running" | "completed" | "failed" | "cancelled">;
  attempt: Generated<number>;
  max_attempts: number;
  user_slot: number | null;
  worker_id: string | null;
  lease_until: Date | null;
  available_at: Generated<Date>;
  cancel_requested_at: Date | null;
  base_revision: number | null;
  change_id: string | null;
  error: ColumnType<TaskError | null, string | null | undefined, string | null>;
  budget_microcredits: Generated<number>;
  budget_left: Generated<number>;
  last_seq: Generated<number>;
  idempotency_key: string | null;
  created_at: CreatedAt;
  started_at: Date | null;
  finished_at: Date | null;
  plan_id: string | null;
  /** Its name within the plan. */
  step: string | null;
  /** Its place among the plan's steps as they were given, from 0. */
  step_nth: number | null;
  /** Steps before it have not completed: not in the line. */
  blocked: Generated<boolean>;
  /** Not in the line, or held at its next model call. */
  paused_at: Date | null;
  /** The task whose session goes on here. */
  continues: string | null;
  context: ColumnType<TaskContext | null, string | null | undefined, string | null>;
  /** Ids of changes whose files lie over the project's when it starts, the first undermost. */
  builds_on: Generated<string[]>;
  /** The change whose conflicts it resolves. */
  resolves: string | null;
  /** Hosts its programs may reach, `host:port`. */
  network: Generated<string[]>;
  /** Its agent may make a plan of further steps. */
  may_plan: Generated<boolean>;
  /** The project's own configuration for agents' programs is let in. */
  agent_config: Generated<boolean>;
}
export type TaskRow = Selectable<TasksTable>;

export interface PlansTable {
  id: string;
  user_id: string;
  project_id: string;
  fingerprint: string | null;
  idempotency_key: string | null;
  created_at: CreatedAt;
}
export type PlanRow = Selectable<PlansTable>;

export interface TaskDependenciesTable {
  task_id: string;
  depends_on: string;
}

export interface InstancesTable {
  id: string;
  heartbeat_at: Generated<Date>;
  capacity: number;
  blocked_reason: string | null;
}

export interface TaskEventsTable {
  task_id: Append<string>;
  seq: Append<number>;
  type: Append<string>;
  data: Json<Record<string, unknown>>;
  created_at: CreatedAt;
}

export interface LedgerEntriesTable {
  id: ColumnType<number, never, never>;
  user_id: Append<string>;
  kind: Append<"grant" | "hold" | "settle" | "release">;
  balance_delta: Append<number>;
  held_delta: Append<number>;
  task_id: AppendNullable<string>;
  call_id: AppendNullable<string>;
  note: AppendNullable<string>;
  idempotency_key: Append<string>;
  created_at: CreatedAt;
}
export type NewLedgerEntry = Insertable<LedgerEntriesTable>;

export interface LlmCallsTable {
  id: string;
  user_id: string;
  task_id: string | null;
  attempt: number | null;
  model: string;
  instance_id: string;
  state: Generated<"open" | "settled" | "released">;
  hold_microcredits: number;
  created_at: CreatedAt;
  finished_at: Date | null;
}

export interface VmSnapshotsTable {
  id: string;
  owner_id: string;
  created_at: CreatedAt;
}

export interface TokensUsedTable {
  call_id: string;
  user_id: string;
  model_id: string;
  endpoint: string;
  task_id: string | null;
  input_tokens: number;
  output_tokens: number;
  cached_tokens: Generated<number>;
  cost_microcredits: number;
  counted_by: "provider" | "tokenizer" | "model";
  created_at: CreatedAt;
}
