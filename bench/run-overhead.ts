import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { locateOpencode } from "#apps/orchestrator/opencode/binary.ts";
import { opencodeConfig, opencodeEnvironment } from "#apps/orchestrator/opencode/config.ts";
import { type ScriptedProvider, startScriptedProvider } from "../tests/support/provider.ts";
import { startTestStudio, type TestStudio, type TestUser } from "../tests/support/studio.ts";
import { eventsOf } from "../tests/support/tasks.ts";
import { machineCpuSeconds, median, printTable, type Row } from "./support.ts";

const ROUNDS = 7;
const AT_ONCE = 20;
const THINK_MS = 3000;
const PROMPT = "[[file:result.txt]] write the result";

interface Measured {
  wallMs: number;
  cpuSeconds: number;
  firstRequestMs: number;
}

/** One task through the studio against `opencode run` started by hand, alternating; then 20 of each at once. */
export async function bench(): Promise<void> {
  await using provider = await startScriptedProvider();
  await using studio = await startTestStudio({ CDS_WARM_PROCESSES: "40" });
  const byHand: Measured[] = [];
  const cold: Measured[] = [];
  const warm: Measured[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    byHand.push(await measured(provider, `hand-${round}`, () => runByHand(provider, `hand-${round}`)));
    const key = `studio-${round}`;
    const user = await withProvider(studio, provider, key);
    const { id } = await user.client.call("project.create", { name: "bench", template: "sample" });
    cold.push(await measured(provider, key, () => throughStudio(studio, user, id)));
    // As a person would: by now the process has been frozen.
    await sleep(THINK_MS);
    warm.push(await measured(provider, key, () => throughStudio(studio, user, id)));
  }
  const handWall = median(byHand.map((run) => run.wallMs));
  printTable([
    row("opencode run", byHand, handWall),
    row("studio, cold", cold, handWall),
    row("studio, warm", warm, handWall),
  ]);
  await atOnce(provider, studio);
}

function row(name: string, runs: Measured[], peerWall: number): Row {
  const wall = median(runs.map((run) => run.wallMs));
  return {
    name,
    "wall ms": wall,
    "of the peer": wall / peerWall,
    "cpu s": median(runs.map((run) => run.cpuSeconds)),
    "first request ms": median(runs.map((run) => run.firstRequestMs)),
    runs: runs.length,
  };
}

async function measured(
  provider: ScriptedProvider,
  key: string,
  run: () => Promise<void>,
): Promise<Measured> {
  const before = provider.requestsOf(key).length;
  const cpu = machineCpuSeconds();
  const start = performance.now();
  await run();
  const wallMs = performance.now() - start;
  const first = provider.requestsOf(key)[before];
  if (first === undefined) throw new Error(`no request with ${key} reached the provider`);
  return { wallMs, cpuSeconds: machineCpuSeconds() - cpu, firstRequestMs: first.at - start };
}

/** The peer: the same executable, settings and provider, as somebody would start it in a terminal. */
async function runByHand(provider: ScriptedProvider, key: string): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "cds-bench-"));
  try {
    await cp("apps/api/sample-project", join(dir, "work"), { recursive: true });
    const models = join(dir, "models.json");
    await writeFile(models, "{}");
    const config = opencodeConfig({ model: "scripted", baseUrl: provider.baseUrl, apiKey: key });
    const child = spawn(
      locateOpencode(undefined),
      ["run", "--format", "json", "--title", "bench", "--model", "gateway/scripted", PROMPT],
      {
        cwd: join(dir, "work"),
        env: {
          PATH: process.env.PATH,
          ...opencodeEnvironment({ home: dir, modelsPath: models, config }),
        },
        stdio: ["ignore", "pipe", "ignore"],
      },
    );
    child.stdout.resume();
    const [code] = await once(child, "exit");
    if (code !== 0) throw new Error(`opencode run ended with ${code}`);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function withProvider(studio: TestStudio, provider: ScriptedProvider, key: string): Promise<TestUser> {
  const user = await studio.user(key);
  await user.client.call("provider.set", { base_url: provider.baseUrl, api_key: key, models: ["scripted"] });
  return user;
}

async function throughStudio(studio: TestStudio, user: TestUser, projectId: string): Promise<void> {
  const { task_id } = await user.client.call("agent.dispatch", {
    agent: "CodeAgent",
    project_id: projectId,
    prompt: PROMPT,
    model: "scripted",
  });
  const last = (await eventsOf(studio.url, user, task_id)).at(-1);
  if (last?.type !== "done" || last.state !== "completed")
    throw new Error(`task ended with ${JSON.stringify(last)}`);
}

async function atOnce(provider: ScriptedProvider, studio: TestStudio): Promise<void> {
  const users: { user: TestUser; id: string }[] = [];
  for (let index = 0; index < AT_ONCE; index += 1) {
    const user = await withProvider(studio, provider, `crowd-${index}`);
    const { id } = await user.client.call("project.create", { name: "bench", template: "sample" });
    users.push({ user, id });
  }
  const total = async (run: () => Promise<unknown>) => {
    const cpu = machineCpuSeconds();
    const start = performance.now();
    await run();
    return { wall: performance.now() - start, cpu: machineCpuSeconds() - cpu };
  };
  const crowd = () => Promise.all(users.map(({ user, id }) => throughStudio(studio, user, id)));
  const hand = await total(() =>
    Promise.all(users.map((_, index) => runByHand(provider, `crowd-hand-${index}`))),
  );
  const cold = await total(crowd);
  const warm = await total(crowd);
  console.log();
  printTable([
    { name: `${AT_ONCE} opencode run`, "wall ms": hand.wall, "cpu s": hand.cpu, "times shorter": 1 },
    {
      name: `${AT_ONCE} tasks, cold`,
      "wall ms": cold.wall,
      "cpu s": cold.cpu,
      "times shorter": hand.wall / cold.wall,
    },
    {
      name: `${AT_ONCE} tasks, warm`,
      "wall ms": warm.wall,
      "cpu s": warm.cpu,
      "times shorter": hand.wall / warm.wall,
    },
  ]);
}
