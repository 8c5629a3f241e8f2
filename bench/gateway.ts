import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { Agent, type ClientRequest, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { PeerReady } from "./gateway-peer.ts";
import { median, percentile, printTable, type Row } from "./support.ts";

const PEER = fileURLToPath(new URL("./gateway-peer.ts", import.meta.url));
const ROUNDS = 3;

interface Scenario {
  name: string;
  /** Streams at once. */
  streams: number;
  /** Streams per round. */
  calls: number;
  chunks: number;
  gapMs: number;
}

const SCENARIOS: Scenario[] = [
  { name: "1 stream", streams: 1, calls: 30, chunks: 40, gapMs: 5 },
  { name: "50 streams", streams: 50, calls: 150, chunks: 40, gapMs: 20 },
  { name: "500 streams", streams: 500, calls: 500, chunks: 20, gapMs: 250 },
  { name: "flood, 20 streams", streams: 20, calls: 20, chunks: 2000, gapMs: 0 },
];

interface Peer extends PeerReady {
  name: string;
  child: ChildProcess;
}

/** The gateway beside the provider called directly and beside a bare pipe, alternating in one run. */
export async function bench(): Promise<void> {
  const provider = await startPeer("direct", "provider");
  const peers = [
    provider,
    await startPeer("bare pipe", "pipe", provider.url),
    await startPeer("gateway", "gateway", provider.url),
  ];
  try {
    for (const peer of peers) await runCalls(peer, { name: "", streams: 5, calls: 200, chunks: 5, gapMs: 0 });
    for (const scenario of SCENARIOS) await compare(peers, scenario);
    for (const peer of peers.slice(1)) await stalled(peer);
  } finally {
    for (const { child } of peers.toReversed()) {
      const exited = once(child, "exit");
      child.disconnect();
      await exited;
    }
  }
}

interface Bill {
  calls: number;
  output_tokens: number;
  open: number;
}

const ask = async <T>({ child }: Peer, question: "bill" | "rss"): Promise<T> => {
  child.send(question);
  const [answer] = (await once(child, "message")) as [T];
  return answer;
};

/** What a hundred readers that take nothing cost, each with two thousand chunks on the way. */
async function stalled(peer: Peer): Promise<void> {
  const readers = 100;
  const agent = new Agent({ maxSockets: readers });
  const before = await rssOf(peer);
  const calls = Array.from({ length: readers }, (_, turn) => {
    const call = openCall(peer, "2000 0", agent, turn);
    call.on("response", (response) => response.pause());
    call.on("error", () => undefined);
    return call;
  });
  await sleep(3000);
  const held = ((await rssOf(peer)) - before) / readers;
  for (const call of calls) call.destroy();
  agent.destroy();
  console.log(`${peer.name}: a stalled reader holds ${held.toFixed(2)} MB`);
}

async function compare(peers: Peer[], scenario: Scenario): Promise<void> {
  const results = new Map(peers.map((peer) => [peer, [] as Measured[]]));
  const billed = await ask<Bill>(peers[2] as Peer, "bill");
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [peer, measured] of results) measured.push(await runCalls(peer, scenario));
  }
  const gateway = peers[2] as Peer;
  const rows: Row[] = [];
  const direct = results.get(peers[0] as Peer)?.flatMap((run) => run.firstByteMs) ?? [];
  const pipe = median(results.get(peers[1] as Peer)?.map((run) => run.chunksPerSecond) ?? []);
  for (const [peer, runs] of results) {
    const firstByte = runs.flatMap((run) => run.firstByteMs);
    const latency = runs.flatMap((run) => run.chunkMs);
    const speed = median(runs.map((run) => run.chunksPerSecond));
    rows.push({
      name: `${scenario.name}: ${peer.name}`,
      "first byte p50 ms": median(firstByte),
      "p99 ms": percentile(firstByte, 0.99),
      "added p50 ms": median(firstByte) - median(direct),
      "chunk p50 ms": median(latency),
      "chunk p99 ms": percentile(latency, 0.99),
      "chunks/s": speed,
      "of the pipe": speed / pipe,
      errors: runs.reduce((sum, run) => sum + run.errors, 0),
      "rss MB": await rssOf(peer),
    });
  }
  printTable(rows);
  const now = await ask<Bill>(gateway, "bill");
  const calls = ROUNDS * scenario.calls;
  const off = now.output_tokens - billed.output_tokens - calls * scenario.chunks;
  console.log(
    `${scenario.name}: ${now.calls - billed.calls} of ${calls} calls charged, ${off} tokens off, ${now.open} open`,
  );
}

interface Measured {
  firstByteMs: number[];
  chunkMs: number[];
  chunksPerSecond: number;
  errors: number;
}

async function runCalls(peer: Peer, scenario: Scenario): Promise<Measured> {
  const agent = new Agent({ keepAlive: true, maxSockets: scenario.streams });
  const measured: Measured = { firstByteMs: [], chunkMs: [], chunksPerSecond: 0, errors: 0 };
  const started = performance.now();
  let left = scenario.calls;
  const worker = async () => {
    while (left > 0) {
      left -= 1;
      await oneCall(peer, scenario, agent, measured, left);
    }
  };
  await Promise.all(Array.from({ length: scenario.streams }, worker));
  measured.chunksPerSecond = (measured.chunkMs.length * 1000) / (performance.now() - started);
  agent.destroy();
  return measured;
}

/** One stream; every content is the moment it left the provider, on the clock all processes share. */
async function oneCall(
  peer: Peer,
  scenario: Scenario,
  agent: Agent,
  into: Measured,
  turn: number,
): Promise<void> {
  const started = performance.now();
  await new Promise<void>((resolve) => {
    let seen = 0;
    let text = "";
    const finish = () => {
      if (seen !== scenario.chunks || !text.includes("[DONE]")) into.errors += 1;
      resolve();
    };
    const call = openCall(peer, `${scenario.chunks} ${scenario.gapMs}`, agent, turn);
    call.on("response", (response) => {
      response.setEncoding("utf8");
      response.on("data", (part: string) => {
        if (text === "") into.firstByteMs.push(performance.now() - started);
        text += part;
        const now = process.hrtime.bigint();
        const end = text.lastIndexOf("\n\n");
        for (const [, stamp] of text.slice(0, end).matchAll(/"content":"(\d+) "/g)) {
          into.chunkMs.push(Number(now - BigInt(stamp ?? 0)) / 1e6);
          seen += 1;
        }
        text = text.slice(end);
        if (part.includes("[DONE]")) text += "[DONE]";
      });
      response.on("close", finish);
    });
    call.on("error", finish);
  });
}

function openCall(peer: Peer, content: string, agent: Agent, turn: number): ClientRequest {
  const body = JSON.stringify({
    ...{ model: "bench", stream: true, stream_options: { include_usage: true } },
    messages: [{ role: "user", content }],
  });
  const headers = {
    "content-type": "application/json",
    authorization: `Bearer ${peer.api_keys[turn % peer.api_keys.length]}`,
    "content-length": Buffer.byteLength(body),
  };
  const call = request(`${peer.url}/chat/completions`, { method: "POST", agent, headers });
  call.end(body);
  return call;
}

async function startPeer(name: string, role: string, upstream = ""): Promise<Peer> {
  const child = fork(PEER, [role, upstream], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  const [ready] = (await once(child, "message")) as [PeerReady];
  return { ...ready, name, child };
}

async function rssOf(peer: Peer): Promise<number> {
  return (await ask<{ rss: number }>(peer, "rss")).rss / 1e6;
}
