/** For a machine it shares with agents and models: small, durable, and telling no user data in its log. */
const SETTINGS = {
  shared_buffers: "64MB",
  superuser_reserved_connections: "3",
  fsync: "on",
  synchronous_commit: "on",
  full_page_writes: "on",
  max_wal_size: "512MB",
  work_mem: "4MB",
  maintenance_work_mem: "64MB",
  effective_cache_size: "512MB",
  random_page_cost: "1.1",
  max_logical_replication_workers: "0",
  // Short queries only, and /dev/shm is tiny in containers.
  max_parallel_workers_per_gather: "0",
  jit: "off",
  io_method: "sync",
  timezone: "UTC",
  log_timezone: "UTC",
  client_encoding: "UTF8",
  log_destination: "stderr",
  logging_collector: "off",
  log_min_messages: "warning",
  log_line_prefix: "%m [%p] ",
  // No statements and no DETAIL lines: both carry users' data.
  log_min_error_statement: "panic",
  log_error_verbosity: "terse",
  log_checkpoints: "off",
  log_autovacuum_min_duration: "-1",
  idle_in_transaction_session_timeout: "60s",
  tcp_keepalives_idle: "60",
} as const satisfies Record<string, string>;

/** For databases that live as long as a test: nothing reaches the disk on purpose. */
const VOLATILE = {
  max_connections: "400",
  fsync: "off",
  synchronous_commit: "off",
  full_page_writes: "off",
  autovacuum: "off",
} as const satisfies Record<string, string>;

const FEWEST_CONNECTIONS = 60;
/** For psql, a backup, a second look. */
const SPARE_CONNECTIONS = 10;

export function serverSettings(connections: number, volatile: boolean): Readonly<Record<string, string>> {
  const max_connections = String(Math.max(FEWEST_CONNECTIONS, connections + SPARE_CONNECTIONS));
  return { ...SETTINGS, max_connections, ...(volatile ? VOLATILE : {}) };
}
