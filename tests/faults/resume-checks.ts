import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "kysely";
import { auditLedger, type Db } from "#database";
import { hashContent, readTree } from "#database/projects/index.ts";
import { allFamilies } from "#sandbox/limits/cgroup-files.ts";
import { readProcess } from "#sandbox/process-tree.ts";
import { STATE_DIR } from "#sandbox/runtime.ts";
import { SAMPLE } from "../support/agent-scripts.ts";
import { processesNaming, sandboxedProcesses } from "../support/leftovers.ts";
import { HANDED_ON_STEPS } from "./resume-jobs.ts";

/** What must be true at every moment, whatever was killed; what is wrong, a line each. */
export async function wrongNow(db: Db): Promise<string[]> {
  const [logs, changes, calls, { users_off }] = await Promise.all([
    wrongLogs(db),
    wrongChanges(db),
    wrongCalls(db),
    auditLedger(db),
  ]);
  return [...logs, ...changes, ...calls, ...users_off.map((user) => `ledger: ${JSON.stringify(user)}`)];
}

/** What must be true besides when every task has ended. */
export async function wrongAtEnd(db: Db): Promise<string[]> {
  const { rows: held } = await sql<{ wrong: string }>`
    SELECT id || ' holds ' || token_held AS wrong FROM users WHERE token_held <> 0
    UNION ALL SELECT id || ' is open' FROM llm_calls WHERE state = 'open'
    UNION ALL SELECT id || ' is ' || state FROM tasks WHERE state IN ('pending', 'running')`.execute(db);
  const rest = [await wrongNow(db), await wrongTrees(db), await wrongEnds(db)];
  return [...held.map(({ wrong }) => wrong), ...rest.flat()];
}

/** How tasks ended, and whose have completed. */
export async function endsOf(db: Db): Promise<{ outcomes: Record<string, number>; agents: string[] }> {
  const { rows } = await sql<{ outcome: string; count: number; agents: string[] }>`
    SELECT coalesce(error ->> 'code', state) AS outcome, count(*)::integer AS count,
      array_agg(DISTINCT agent ORDER BY agent) AS agents
    FROM tasks GROUP BY 1 ORDER BY 1`.execute(db);
  const outcomes = Object.fromEntries(rows.map(({ outcome, count }) => [outcome, count]));
  return { outcomes, agents: rows.find(({ outcome }) => outcome === "completed")?.agents ?? [] };
}

/** A task ends as its script says, unless its attempts were used up or a step before it was lost. */
async function wrongEnds(db: Db): Promise<string[]> {
  const { rows } = await sql<{ wrong: string }>`
    SELECT id || ' (' || prompt || ') is ' || state || ': ' || coalesce(error::text, '') AS wrong FROM tasks
    WHERE NOT CASE
      WHEN state = 'completed' THEN prompt NOT LIKE '%/refused%'
      WHEN state = 'cancelled' THEN plan_id IS NOT NULL
      WHEN error ->> 'code' = 'RunFailed' THEN attempt = max_attempts AND error ->> 'message' LIKE '%stopped answering%'
      ELSE error ->> 'code' = 'ResultInvalid' AND prompt LIKE '%/refused%' END`.execute(db);
  return rows.map(({ wrong }) => wrong);
}

/** Events without a gap; `done` once and last of what has ended, never of what has not. */
async function wrongLogs(db: Db): Promise<string[]> {
  const { rows } = await sql<{ wrong: string }>`
    SELECT t.id || ' is ' || t.state || ': ' || to_jsonb(l)::text AS wrong FROM tasks t
    CROSS JOIN LATERAL (SELECT count(*) AS events, max(seq) AS last, t.last_seq AS noted,
      count(*) FILTER (WHERE type = 'done') AS done, max(seq) FILTER (WHERE type = 'done') AS done_at,
      max(data ->> 'state') FILTER (WHERE type = 'done') AS told,
      count(*) FILTER (WHERE type = 'change') AS changes
      FROM task_events e WHERE e.task_id = t.id) l
    WHERE l.events <> l.last OR l.last <> l.noted OR CASE
      WHEN t.state IN ('pending', 'running') THEN l.done <> 0 OR l.changes <> 0
      ELSE l.done <> 1 OR l.done_at <> l.last OR l.told <> t.state
        OR l.changes <> CASE WHEN t.change_id IS NULL THEN 0 ELSE 1 END END`.execute(db);
  return rows.map(({ wrong }) => wrong);
}

/** One change of a task that has one, none of any other; steps an agent made are there once. */
async function wrongChanges(db: Db): Promise<string[]> {
  const { rows } = await sql<{ wrong: string }>`
    SELECT t.id || ' has changes: ' || c.count AS wrong FROM tasks t
    CROSS JOIN LATERAL (SELECT count(*) AS count, min(id) AS id FROM changes WHERE task_id = t.id) c
    WHERE c.count <> CASE WHEN t.change_id IS NULL THEN 0 ELSE 1 END OR c.id <> t.change_id
    UNION ALL
    SELECT t.id || ' handed on steps: ' || s.count FROM tasks t
    CROSS JOIN LATERAL (SELECT count(*) AS count FROM tasks o
      WHERE o.plan_id = t.plan_id AND o.step LIKE t.step || '.%') s
    WHERE t.may_plan AND s.count <> CASE WHEN t.state = 'completed' THEN ${HANDED_ON_STEPS} ELSE 0 END
  `.execute(db);
  return rows.map(({ wrong }) => wrong);
}

/** A call that was settled is charged and counted once, any other never. */
async function wrongCalls(db: Db): Promise<string[]> {
  const { rows } = await sql<{ wrong: string }>`
    SELECT c.id || ' is ' || c.state || ', settled: ' || l.settled || ', used: ' || u.used AS wrong
    FROM llm_calls c
    CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE kind = 'settle') AS settled
      FROM ledger_entries WHERE call_id = c.id) l
    CROSS JOIN LATERAL (SELECT count(*) AS used FROM tokens_used WHERE call_id = c.id) u
    WHERE l.settled <> CASE WHEN c.state = 'settled' THEN 1 ELSE 0 END OR u.used <> l.settled`.execute(db);
  return rows.map(({ wrong }) => wrong);
}

/** Nobody accepted anything: each project is what it was, and what its newest revision says. */
async function wrongTrees(db: Db): Promise<string[]> {
  const expected = Object.entries(SAMPLE)
    .map(([path, text]) => `${path} ${hashContent(Buffer.from(text)).toString("hex")}`)
    .sort();
  const projects = await db.selectFrom("projects").select(["id", "head_revision"]).execute();
  const wrong: string[] = [];
  for (const { id, head_revision } of projects) {
    for (const revision of [undefined, head_revision]) {
      const tree = await readTree(db, id, revision);
      const found = tree.map(({ path, blob_hash }) => `${path} ${blob_hash.toString("hex")}`).sort();
      if (found.join("\n") !== expected.join("\n")) wrong.push(`${id} has ${found.join(", ")}`);
    }
  }
  return wrong;
}

/** By what everything a server leaves on the machine is named, as long as it runs. */
export function marksOf(pid: number): string {
  return `-${pid}-${readProcess(pid)?.started ?? "gone"}-`;
}

/** Processes, directories of slots, control groups and sockets of a server that was killed. */
export async function leftOf(marks: string, dataDir: string): Promise<string[]> {
  const entries = async (directory: string) =>
    (await readdir(directory).catch(() => [])).map((name) => join(directory, name));
  const bases = [tmpdir(), join(dataDir, "sandbox"), ...(await entries(STATE_DIR)), ...(await allFamilies())];
  const named = (await Promise.all(bases.map(entries))).flat().filter((path) => path.includes(marks));
  return [...named, ...sandboxedProcesses(marks), ...processesNaming(marks)];
}
