import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Dispatcher } from "undici";
import type { Config } from "#platform/config/config.ts";
import type { Log } from "#platform/log.ts";
import { ownerOf, type Sandboxes, type Slot } from "#sandbox";
import { ModelBridge } from "../bridge/bridge.ts";
import { OpencodeProcess } from "./process.ts";

const MIB = 1024 * 1024;
/** opencode has about 25 threads; the rest is for builds and tests it runs. */
const MAX_PROCESSES = 256;
const TMP_BYTES = 64 * MIB;
/** Deltas reach opencode at most this often: its processor time goes by wake-ups (measured: 6-8 s against 2.6 s). */
const FLUSH_MS = 150;

/** What every workplace needs from the outside. */
export interface WorkplaceDeps {
  readonly sandboxes: Sandboxes;
  readonly config: Config;
  readonly log: Log;
  /** Base address of the model server, without `/v1`. */
  readonly llmUrl: string;
  readonly dispatcher: Dispatcher;
  /** The opencode and Node executables, where every slot's user can read them. */
  readonly binary: string;
  readonly node: string;
}

/** A slot made ready for one user's runs in one project: its directories, its way to the models, its process. */
export class Workplace {
  readonly slot: Slot;
  /** Host directory seen as `/workspace` inside. */
  readonly area: string;
  /** Host directory of requests being prepared and read, out of the sandbox's reach. */
  readonly requests: string;
  lastUsed = performance.now();
  #key: string | undefined;
  readonly #deps: WorkplaceDeps;
  readonly #home: string;
  readonly #settings: string;
  readonly #bridge: ModelBridge;
  #opencode: OpencodeProcess | undefined;
  #destroyed: Promise<void> | undefined;

  private constructor(
    slot: Slot,
    bridge: ModelBridge,
    deps: WorkplaceDeps,
    dirs: Record<"area" | "home" | "requests" | "settings", string>,
  ) {
    this.slot = slot;
    this.area = dirs.area;
    this.requests = dirs.requests;
    this.#home = dirs.home;
    this.#settings = dirs.settings;
    this.#bridge = bridge;
    this.#deps = deps;
  }

  /** Take a slot and prepare it. @throws AppError of the sandbox when there is none, Cancelled by `signal`. */
  static async open(deps: WorkplaceDeps, signal: AbortSignal): Promise<Workplace> {
    const { config } = deps;
    const slot = await deps.sandboxes.slots.acquire(signal);
    try {
      const dirs = {
        area: await slot.makeDir("area"),
        home: await slot.makeDir("home"),
        requests: await slot.makeDir("requests"),
        settings: await makeSettings(slot),
      };
      const bridge = await ModelBridge.open({
        socketPath: slot.socketPath,
        owner: ownerOf(slot),
        llmUrl: `${deps.llmUrl}/v1`,
        dispatcher: deps.dispatcher,
        maxBodyBytes: config.limits.bodyBytes,
        maxModelCalls: config.run.maxModelCalls,
        maxOutputTokens: config.run.maxOutputTokens,
        flushMs: FLUSH_MS,
        upstreamTimeoutMs: config.run.timeoutMs,
        log: deps.log,
      });
      return new Workplace(slot, bridge, deps, dirs);
    } catch (error) {
      await slot.release();
      throw error;
    }
  }

  /** User and project it belongs to; nobody else's task ever runs here. Undefined while it is a spare. */
  get key(): string | undefined {
    return this.#key;
  }

  /** Give it to a user and project, once and for good. */
  assign(key: string): void {
    if (this.#key !== undefined) throw new Error("this workplace belongs to somebody already");
    this.#key = key;
  }

  /** Who owns files here; null = ourselves. */
  get owner(): { uid: number; gid: number } | null {
    return ownerOf(this.slot);
  }

  /** The process, once `start` has succeeded. */
  get opencode(): OpencodeProcess | undefined {
    return this.#opencode;
  }

  /** Cold start; `agentConfig`: with what the project brings for agents' programs. @throws AppError; the workplace then is good for nothing but `destroy`. */
  async start(signal: AbortSignal, agentConfig = false): Promise<OpencodeProcess> {
    const { config, sandboxes, log, binary, node } = this.#deps;
    const start = {
      name: `opencode-${this.slot.index}`,
      sandboxes,
      slot: this.slot,
      area: this.area,
      home: this.#home,
      bridge: this.#bridge,
      binary,
      node,
      settings: this.#settings,
      limits: {
        memoryBytes: config.run.memoryBytes,
        fileBytes: Math.max(config.quota.fileBytes, 256 * MIB),
        processes: MAX_PROCESSES,
        tmpBytes: TMP_BYTES,
      },
      maxOutputTokens: config.run.maxOutputTokens,
      agentConfig,
      log,
    };
    this.#opencode = await OpencodeProcess.start(start, signal);
    return this.#opencode;
  }

  /** End everything here and give the slot back; its directory goes with it. */
  destroy(): Promise<void> {
    this.#destroyed ??= this.#destroy();
    return this.#destroyed;
  }

  async #destroy(): Promise<void> {
    try {
      await this.#opencode?.kill();
    } finally {
      await this.#bridge.close();
      await this.slot.release();
    }
  }
}

/** What opencode reads of ours, mounted read-only. */
async function makeSettings(slot: Slot): Promise<string> {
  const settings = await slot.makeDir("settings");
  const opencode = join(settings, "config", "opencode");
  await mkdir(opencode, { recursive: true, mode: 0o755 });
  // A .gitignore in a directory it cannot write keeps opencode from installing packages there.
  await writeFile(join(opencode, ".gitignore"), "*\n", { mode: 0o644 });
  await writeFile(join(settings, "models.json"), "{}\n", { mode: 0o644 });
  return settings;
}
