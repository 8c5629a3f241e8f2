import { randomBytes } from "node:crypto";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { agents } from "#agents";
import { asObject } from "#platform/json.ts";
import type { Log } from "#platform/log.ts";
import type { SandboxExit, Sandboxes, SandboxProcess, Slot } from "#sandbox";
import { AppError } from "#schemas";
import { AcpClient } from "../acp/client.ts";
import type { BridgeRun, BridgeTask, ModelBridge } from "../bridge/bridge.ts";
import { INSIDE, opencodeConfig, opencodeEnvironment } from "./config.ts";

/** Port of the bridge inside; opencode's own server takes 4096. */
const BRIDGE_PORT = 4010;
/** The bridge's address as opencode sees it. */
export const BRIDGE_URL = `http://127.0.0.1:${BRIDGE_PORT}/v1`;
/** The model's name as opencode knows it; the bridge puts the task's in. */
const MODEL = "model";
const INITIALIZE_TIMEOUT_MS = 60_000;
const SESSION_TIMEOUT_MS = 30_000;
const MODE_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 2000;
const MAX_STDERR_CHARS = 4096;

export interface OpencodeStart {
  readonly name: string;
  readonly sandboxes: Sandboxes;
  readonly slot: Slot;
  /** Host paths, all in the slot's directory. */
  readonly area: string;
  readonly home: string;
  readonly bridge: ModelBridge;
  /** Host paths of opencode, of Node and of the read-only settings directory. */
  readonly binary: string;
  readonly node: string;
  readonly settings: string;
  readonly limits: { memoryBytes: number; fileBytes: number; processes: number; tmpBytes: number };
  readonly maxOutputTokens: number;
  /** Whether it loads what the project brings for agents' programs. */
  readonly agentConfig: boolean;
  readonly log: Log;
}

export interface Prompt {
  readonly text: string;
  /** Longest wait for the whole answer, ms. */
  readonly timeoutMs: number;
  onUpdate(update: Record<string, unknown>): void;
}

/** One `opencode acp` in its sandbox: takes one prompt at a time, each in a session of its own. */
export class OpencodeProcess {
  readonly serverPassword: string;
  /** Prompts it has taken. */
  prompts = 0;
  readonly #sandbox: SandboxProcess;
  readonly #bridge: ModelBridge;
  readonly #memoryBytes: number;
  readonly #acp: AcpClient;
  readonly #log: Log;
  #onUpdate: ((update: Record<string, unknown>) => void) | undefined;
  #sessionId: string | undefined;
  #exit: SandboxExit | undefined;
  #stderr = "";

  private constructor(sandbox: SandboxProcess, start: OpencodeStart, serverPassword: string) {
    this.#sandbox = sandbox;
    this.#bridge = start.bridge;
    this.#memoryBytes = start.limits.memoryBytes;
    this.#log = start.log;
    this.serverPassword = serverPassword;
    this.#acp = new AcpClient(sandbox, {
      onUpdate: (sessionId, update) => {
        if (sessionId === this.#sessionId) this.#onUpdate?.(update);
      },
      onGarbage: (what) => this.#log.debug({ what }, "opencode wrote something that is no message"),
    });
    sandbox.stderr.on("data", (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString("utf8")).slice(-MAX_STDERR_CHARS);
    });
    sandbox.stderr.on("error", () => undefined);
    sandbox.exited.then(
      (exit) => this.#ended(exit),
      () => this.#ended({ code: null, signal: null }),
    );
  }

  /**
   * Start and greet one; about 1.5 s of processor time. Nothing is left behind when it fails.
   * @throws AppError EngineUnavailable, RunFailed, Timeout.
   */
  static async start(start: OpencodeStart, signal: AbortSignal): Promise<OpencodeProcess> {
    const serverPassword = randomBytes(24).toString("base64url");
    const sandbox = await start.sandboxes.start(specification(start, serverPassword));
    const opencode = new OpencodeProcess(sandbox, start, serverPassword);
    try {
      const capabilities = { fs: { readTextFile: false, writeTextFile: false }, terminal: false };
      const hello = { protocolVersion: 1, clientCapabilities: capabilities };
      await opencode.#acp.request("initialize", hello, INITIALIZE_TIMEOUT_MS, signal);
      await sandbox.mark();
      return opencode;
    } catch (error) {
      start.log.warn({ err: error, stderr: opencode.#stderr }, "opencode did not start");
      await opencode.kill();
      throw error;
    }
  }

  /** Whether it has ended, by itself or by us. */
  get dead(): boolean {
    return this.#exit !== undefined;
  }

  /**
   * Open the session for one prompt; its working directory need not be there yet.
   * @throws AppError RunFailed, Timeout, what `signal` was aborted with.
   */
  async openSession(agent: string, signal: AbortSignal): Promise<void> {
    await this.closeSession();
    const place = { cwd: INSIDE.work, mcpServers: [] };
    const opened = asObject(await this.#acp.request("session/new", place, SESSION_TIMEOUT_MS, signal));
    if (typeof opened?.sessionId !== "string") throw new AppError("RunFailed", "opencode opened no session.");
    const { sessionId } = opened;
    this.#sessionId = sessionId;
    await this.#acp.request("session/set_mode", { sessionId, modeId: agent }, MODE_TIMEOUT_MS, signal);
  }

  /**
   * Send the prompt to the open session and wait for its end, whatever it takes: who is tired of waiting calls
   * `cancel`. @returns opencode's own word for how it ended.
   * @throws AcpError when opencode reports a failure (the bridge's run tells its cause), AppError RunFailed when
   * it dies, Timeout.
   */
  async prompt(prompt: Prompt): Promise<string> {
    this.prompts += 1;
    this.#onUpdate = prompt.onUpdate;
    const params = { sessionId: this.#sessionId, prompt: [{ type: "text", text: prompt.text }] };
    const ended = asObject(await this.#acp.request("session/prompt", params, prompt.timeoutMs));
    return String(ended?.stopReason);
  }

  /** Let opencode forget the session. Never throws. */
  async closeSession(): Promise<void> {
    const sessionId = this.#sessionId;
    this.#sessionId = undefined;
    if (sessionId === undefined || this.dead) return;
    await this.#acp.request("session/close", { sessionId }, CLOSE_TIMEOUT_MS).catch(() => undefined);
  }

  /** Let the sandbox call models for this task until `endTask`. */
  beginTask(task: BridgeTask): BridgeRun {
    return this.#bridge.begin(task);
  }

  /** No model call and no update of this task counts any more. */
  endTask(): void {
    this.#bridge.end();
    this.#onUpdate = undefined;
  }

  /** Ask the running prompt to stop; whoever waits for it sees it end. */
  cancel(): void {
    if (this.#sessionId !== undefined) this.#acp.notify("session/cancel", { sessionId: this.#sessionId });
  }

  pauseOutput(pause: boolean): void {
    if (pause) this.#acp.pause();
    else this.#acp.resume();
  }

  /** End every process the run has left behind. Answers how many those were. */
  async sweep(): Promise<number> {
    return this.dead ? 0 : this.#sandbox.sweep();
  }

  async memoryBytes(): Promise<number> {
    return (await this.#sandbox.stats()).memoryBytes;
  }

  freeze(): Promise<void> {
    return this.#sandbox.freeze();
  }

  thaw(): Promise<void> {
    return this.#sandbox.thaw();
  }

  /** End the whole tree; resolves when nothing of it is left. */
  async kill(): Promise<void> {
    this.endTask();
    this.#acp.close("The agent's process was ended.");
    await this.#sandbox.kill();
  }

  /** Why it is gone, for its task's owner; undefined when it is still there after `waitMs`. */
  async exitError(waitMs: number): Promise<AppError | undefined> {
    const gone = this.#sandbox.exited.then(
      () => true,
      () => true,
    );
    await Promise.race([gone, sleep(waitMs, false, { ref: false })]);
    return this.#exit === undefined ? undefined : exitError(this.#exit, this.#memoryBytes);
  }

  #ended(exit: SandboxExit): void {
    this.#exit = exit;
    this.#acp.close(exitError(exit, this.#memoryBytes).message);
  }
}

function exitError(exit: SandboxExit, memoryBytes: number): AppError {
  if (exit.limit === "memory") {
    const megabytes = Math.round(memoryBytes / 1024 / 1024);
    return new AppError("RunFailed", `The run needed more than its ${megabytes} MB of memory.`, {
      hint: "Ask for less at a time, or raise CDS_RUN_MEMORY_MB.",
    });
  }
  const how = exit.signal ?? (exit.code === null ? "killed" : `code ${exit.code}`);
  return new AppError("RunFailed", `The agent's process ended (${how}) before the agent had finished.`, {
    hint: "Dispatch the task again.",
  });
}

function specification(start: OpencodeStart, serverPassword: string): Parameters<Sandboxes["start"]>[0] {
  const config = opencodeConfig({
    model: MODEL,
    baseUrl: BRIDGE_URL,
    apiKey: "none",
    agents,
    maxOutputTokens: start.maxOutputTokens,
  });
  const env = opencodeEnvironment({
    home: INSIDE.home,
    modelsPath: INSIDE.models,
    config,
    configHome: join(INSIDE.settings, "config"),
    serverPassword,
    agentConfig: start.agentConfig,
  });
  return {
    name: start.name,
    argv: [INSIDE.binary, "acp"],
    env: { ...env, PATH: `/usr/local/bin:/usr/bin:/bin:${dirname(INSIDE.node)}` },
    cwd: INSIDE.area,
    mounts: [
      { source: start.binary, target: INSIDE.binary, mode: "ro" },
      { source: start.node, target: INSIDE.node, mode: "ro" },
      { source: start.settings, target: INSIDE.settings, mode: "ro" },
      { source: start.area, target: INSIDE.area, mode: "rw" },
      { source: start.home, target: INSIDE.home, mode: "rw" },
    ],
    limits: start.limits,
    slot: start.slot,
    bridge: { socketPath: start.slot.socketPath, port: BRIDGE_PORT },
  };
}
