import pg from "pg";
import { startEmbeddedPostgres } from "#database";
import { createLogger } from "#platform/log.ts";

/**
 * Run as a process of its own by tests that kill it: starts the embedded database of argv[2], writes a row,
 * prints one line of JSON, and stays until it is killed, or stops in order when stdin ends.
 */
const [, , dataDir = ""] = process.argv;
const log = createLogger({ level: "silent", pretty: false });
const server = await startEmbeddedPostgres({ dataDir, log });
const client = new pg.Client({ connectionString: server.url });
await client.connect();
await client.query("CREATE TABLE IF NOT EXISTS kept (n serial, uid integer)");
await client.query("INSERT INTO kept (uid) VALUES ($1)", [process.getuid?.() ?? -1]);
process.stdout.write(`${JSON.stringify({ pid: server.pid, adopted: server.adopted })}\n`);
for await (const _chunk of process.stdin);
await client.end();
await server.stop();
