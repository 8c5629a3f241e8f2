import { chmod, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { probeEngine } from "#apps/llmserver/local/probe.ts";
import { locateOpencode } from "#apps/orchestrator/opencode/binary.ts";
import { chooseDataDir } from "#database/embedded/identity.ts";
import { startEmbeddedPostgres } from "#database/embedded/start.ts";
import { type Config, ConfigError, createLogger, readConfig } from "#platform";
import { languages, openEngines, openSandboxes } from "#sandbox";
import { toAppError } from "#schemas";
import { say } from "./banner.ts";
import { versionOf } from "./run-health.ts";

/** `npm run doctor`: the state of every part, found out by trying it, and how to mend it. */
interface Finding {
  part: string;
  ok: boolean;
  detail: string;
  mend?: string | undefined;
}

/** The settings; one that is wrong would stop the start as well, so nothing else is worth looking at. */
function settings(): Config {
  try {
    return readConfig();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    say(`NOT  settings   ${error.message}\n                Every setting: docs/configuration.md`);
    process.exit(1);
  }
}

const config = settings();
const log = createLogger({ ...config.log, level: "silent" });

/** Each engine is really tried: a file, a program, a module, a virtual machine that boots. */
async function sandbox(directory: string): Promise<Finding[]> {
  await using sandboxes = await openSandboxes({
    dataDir: directory,
    log,
    tempDirPrefix: config.run.tempDirPrefix,
  });
  await using engines = await openEngines({
    sandboxes,
    dataDir: directory,
    log,
    imageDir: config.micro.imageDir,
  });
  const findings: Finding[] = [];
  for (const engine of engines.all()) {
    const { available, tier, reasons, hint } = await engine.probe();
    const limits = tier === null ? [] : [`limits by ${tier}`];
    const detail = [...(available ? ["works", ...limits] : []), ...reasons].join("; ");
    // Without machines everything else works.
    const ok = available || engine.name === "micro";
    findings.push({ part: `sandbox ${engine.name}`, ok, detail, mend: hint });
  }
  const found = await languages(sandboxes);
  const detail = found.map(({ name, version }) => `${name} ${version}`).join(", ");
  return [...findings, { part: "languages", ok: true, detail }];
}

async function database(directory: string): Promise<Finding> {
  if (config.database.url !== undefined) {
    return { part: "database", ok: true, detail: "DATABASE_URL is set; npm start will use it" };
  }
  const postgres = await startEmbeddedPostgres({ dataDir: directory, log, volatile: true });
  await postgres.stop();
  return { part: "database", ok: true, detail: "the embedded PostgreSQL starts" };
}

async function opencode(): Promise<Finding> {
  const version = await versionOf(locateOpencode(config.run.opencodeBin));
  return { part: "opencode", ok: version !== undefined, detail: version ?? "it does not start" };
}

async function program(command: string, part: string, missing: string): Promise<Finding> {
  const version = await versionOf(command);
  return {
    part,
    ok: version !== undefined,
    detail: version ?? "not found",
    mend: version === undefined ? missing : undefined,
  };
}

async function dataDirectory(): Promise<Finding> {
  const { dataDir, moved } = chooseDataDir(config);
  return {
    part: "data",
    ok: true,
    detail: moved ? `${dataDir} (./data lies below a closed directory)` : dataDir,
  };
}

async function models(): Promise<Finding> {
  const detail =
    config.provider.apiKey === undefined
      ? "demo, and what users store a key for (OPENAI_API_KEY is not set)"
      : `demo, users' own, and ${config.provider.baseUrl}`;
  return { part: "models", ok: true, detail };
}

async function localModels(): Promise<Finding> {
  const { cores, gpu } = await probeEngine();
  const directory = config.llm.modelsDir ?? join(chooseDataDir(config).dataDir, "models");
  const files = await readdir(directory).catch(() => []);
  const installed = files.filter((name) => name.endsWith(".gguf")).length;
  const where = gpu === undefined ? `${cores} cores, no GPU` : `${cores} cores, ${gpu}`;
  return { part: "inference", ok: true, detail: `${where}; ${installed} models in ${directory}` };
}

async function examine(part: string, check: () => Promise<Finding | Finding[]>): Promise<Finding[]> {
  try {
    return [await check()].flat();
  } catch (error) {
    const known = toAppError(error);
    const detail = known.code === "InternalError" ? String(error) : known.message;
    return [{ part, ok: false, detail, mend: known.details.hint }];
  }
}

const directory = await mkdtemp(join(tmpdir(), "cds-doctor-"));
// As root, the database and the sandboxes run as other users, who must be able to pass.
await chmod(directory, 0o711);
try {
  const findings = [
    { part: "node", ok: true, detail: process.version },
    ...(await examine("data", dataDirectory)),
    ...(await examine("database", () => database(join(directory, "database")))),
    ...(await examine("sandbox", () => sandbox(join(directory, "sandbox")))),
    ...(await examine("opencode", opencode)),
    ...(await examine("ripgrep", () =>
      program("rg", "ripgrep", "Install ripgrep: agents search much faster with it."),
    )),
    ...(await examine("git", () => program("git", "git", "Install git."))),
    ...(await examine("models", models)),
    ...(await examine("inference", localModels)),
  ];
  for (const { part, ok, detail, mend } of findings) {
    say(
      `${ok ? "ok  " : "NOT "} ${part.padEnd(13)} ${detail}${mend === undefined ? "" : `\n     ${" ".repeat(13)} ${mend}`}`,
    );
  }
  process.exitCode = findings.every((finding) => finding.ok) ? 0 : 1;
} finally {
  await rm(directory, { recursive: true, force: true });
}
