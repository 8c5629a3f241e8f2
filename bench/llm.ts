import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import OpenAI from "openai";
import { cachedModel } from "../tests/support/gguf/index.ts";
import type { Account, LlmPeerReady, Run } from "./llm-peer.ts";
import { median, printTable, type Row } from "./support.ts";

const PEER = fileURLToPath(new URL("./llm-peer.ts", import.meta.url));
const MODEL = "llama-1b";
const ROUNDS = 3;
const PROMPT = "the weather in Paris is ";
/** As many tokens as keep a round within some ten seconds. */
const SCENARIOS = [
  { concurrent: 1, tokens: 64 },
  { concurrent: 4, tokens: 32 },
  { concurrent: 16, tokens: 24 },
  { concurrent: 50, tokens: 16 },
];

/** Local inference through the product beside node-llama-cpp called directly, alternating in one run. */
export async function bench(): Promise<void> {
  const path = await cachedModel(MODEL);
  const bytes = statSync(path).size;
  const bandwidth = readBandwidth();
  const limit = bandwidth / bytes;
  console.log(
    `memory: ${(bandwidth / 1e9).toFixed(1)} GB/s read by one thread; model ${(bytes / 1e6).toFixed(0)} MB: ` +
      `at most ${limit.toFixed(1)} tokens/s for one sequence`,
  );
  const bare = await startPeer("bare", path);
  const server = await startPeer("server", path);
  try {
    await compare(bare, server, limit);
    await interruptions(server);
  } finally {
    for (const { child } of [bare, server]) {
      const exited = once(child, "exit");
      child.disconnect();
      await exited;
    }
  }
}

interface Peer extends LlmPeerReady {
  child: ChildProcess;
}

async function startPeer(role: string, path: string): Promise<Peer> {
  const child = fork(PEER, [role, path], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  const [ready] = (await once(child, "message")) as [LlmPeerReady];
  return { ...ready, child };
}

async function compare(bare: Peer, server: Peer, limit: number): Promise<void> {
  await throughServer(server, { concurrent: 1, tokens: 4, prompt: PROMPT });
  await throughBare(bare, { concurrent: 1, tokens: 4, prompt: PROMPT });
  const rows: Row[] = [];
  let single = Number.NaN;
  for (const scenario of SCENARIOS) {
    const run = { ...scenario, prompt: PROMPT };
    const speeds = { bare: [] as number[], server: [] as number[] };
    for (let round = 0; round < ROUNDS; round += 1) {
      speeds.bare.push(await throughBare(bare, run));
      speeds.server.push(await throughServer(server, run));
    }
    const [direct, ours] = [median(speeds.bare), median(speeds.server)];
    if (scenario.concurrent === 1) single = ours;
    rows.push({
      name: `${scenario.concurrent} at once`,
      "bare tokens/s": direct,
      "studio tokens/s": ours,
      "of bare": ours / direct,
      "of one sequence": ours / single,
      "of the bandwidth": ours / limit,
    });
  }
  printTable(rows);
  await fiftyAtOnce(server);
}

/** LLM-7: none fails, and every token told is charged. */
async function fiftyAtOnce(server: Peer): Promise<void> {
  const before = await accountOf(server);
  const client = clientOf(server);
  const calls = Array.from({ length: 50 }, () => stream(client, PROMPT, 8, () => undefined));
  const ended = await Promise.allSettled(calls);
  const failed = ended.filter(({ status }) => status === "rejected").length;
  const told = ended.reduce((sum, result) => sum + (result.status === "fulfilled" ? result.value : 0), 0);
  const after = await accountOf(server);
  console.log(
    `50 at once: ${failed} failed, ${after.calls - before.calls} charged, ` +
      `${after.output_tokens - before.output_tokens - told} tokens off, ${after.open} open; ` +
      `the gateway's process holds ${(after.rss / 1e6).toFixed(0)} MB`,
  );
}

async function accountOf({ child }: Peer): Promise<Account> {
  child.send("account");
  const [account] = (await once(child, "message")) as [Account];
  return account;
}

async function throughBare({ child }: Peer, run: Run): Promise<number> {
  child.send(run);
  const [{ generated, ms }] = (await once(child, "message")) as [{ generated: number; ms: number }];
  return (generated * 1000) / ms;
}

async function throughServer(peer: Peer, { concurrent, tokens, prompt }: Run): Promise<number> {
  const client = clientOf(peer);
  const started = performance.now();
  const answers = await Promise.all(
    Array.from({ length: concurrent }, () => stream(client, prompt, tokens, () => undefined)),
  );
  const generated = answers.reduce((sum, count) => sum + count, 0);
  return (generated * 1000) / (performance.now() - started);
}

const clientOf = ({ url, api_key }: Peer) => new OpenAI({ apiKey: api_key, baseURL: url, maxRetries: 0 });

/** @returns tokens by the server's own figures. */
async function stream(
  client: OpenAI,
  prompt: string,
  max_tokens: number,
  onChunk: () => void,
  signal?: AbortSignal,
): Promise<number> {
  const answer = await client.completions.create(
    {
      ...{ model: MODEL, prompt, max_tokens, temperature: 0.7, stream: true as const },
      stream_options: { include_usage: true },
    },
    { signal: signal ?? null },
  );
  let tokens = 0;
  for await (const chunk of answer) {
    onChunk();
    tokens = chunk.usage?.completion_tokens ?? tokens;
  }
  return tokens;
}

/** Cancelling in any phase, and what one long prompt does to a neighbour. */
async function interruptions(peer: Peer): Promise<void> {
  const client = clientOf(peer);
  const long = (salt: number) => `${salt} ${"hello world and the weather ".repeat(260)}`;
  const cancels: Record<string, number[]> = { prefill: [], generating: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    cancels.prefill?.push(await cancelAfter(peer, client, long(round), 1500, 0));
    cancels.generating?.push(await cancelAfter(peer, client, PROMPT, 0, 3));
  }
  const gaps: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) gaps.push(await neighbourGap(client, long(10 + round)));
  printTable([
    { name: "cancel while the prompt is evaluated", "ms p50": median(cancels.prefill ?? []) },
    { name: "cancel while generating", "ms p50": median(cancels.generating ?? []) },
    { name: "longest silence of a neighbour during a long prompt", "ms p50": median(gaps) },
  ]);
}

/** ms from the cancel until the engine has nothing in work. */
async function cancelAfter(
  peer: Peer,
  client: OpenAI,
  prompt: string,
  ms: number,
  chunks: number,
): Promise<number> {
  const abort = new AbortController();
  let seen = 0;
  const running = stream(
    client,
    prompt,
    400,
    () => {
      seen += 1;
      if (chunks > 0 && seen === chunks) abort.abort();
    },
    abort.signal,
  ).catch(() => 0);
  if (ms > 0) {
    await sleep(ms);
    abort.abort();
  } else await running;
  const started = performance.now();
  const status = `${peer.url.replace("/v1", "")}/admin/status`;
  for (;;) {
    const response = await fetch(status, { headers: { authorization: `Bearer ${peer.admin_key}` } });
    const { active_calls } = (await response.json()) as { active_calls: number };
    if (active_calls === 0) break;
    await sleep(10);
  }
  await running;
  return performance.now() - started;
}

async function neighbourGap(client: OpenAI, prompt: string): Promise<number> {
  let last = 0;
  let longest = 0;
  const neighbour = stream(client, PROMPT, 160, () => {
    const now = performance.now();
    if (last > 0) longest = Math.max(longest, now - last);
    last = now;
  });
  await sleep(1000);
  await stream(client, prompt, 1, () => undefined);
  await neighbour;
  return longest;
}

/** Bytes per second one thread reads: memcmp over two buffers far larger than any cache. */
function readBandwidth(): number {
  const size = 256 * 1024 * 1024;
  const [a, b] = [Buffer.alloc(size, 1), Buffer.alloc(size, 1)];
  const speeds = Array.from({ length: 7 }, () => {
    const started = performance.now();
    if (!a.equals(b)) throw new Error("equal buffers differ");
    return (2 * size * 1000) / (performance.now() - started);
  });
  return median(speeds);
}
