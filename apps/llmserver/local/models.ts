import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { priceOf } from "#database/accounts/prices.ts";
import { DEMO_MODEL } from "#database/accounts/provider-resolution.ts";
import { type LocalModelRow, resetLoaded, setModelState } from "#database/models/index.ts";
import type { Db } from "#database/schema.ts";
import type { Config } from "#platform/config/config.ts";
import type { Memory } from "#platform/host/host-load.ts";
import type { Log } from "#platform/log.ts";
import { type Repeating, repeat } from "#platform/repeat.ts";
import { Serial } from "#platform/serial.ts";
import {
  AppError,
  type DownloadView,
  type LoadConfig,
  type LoadedModelView,
  type LocalModelsStatus,
  type LocalModelView,
  loadConfigSchema,
  localModelNameSchema,
} from "#schemas";
import { type DownloadedModel, parseModelUrl } from "../hub/index.ts";
import type { DownloadRequest } from "./manage/download-job.ts";
import { Downloads } from "./manage/downloads.ts";
import {
  forClients,
  modelNotFound,
  notLoaded,
  serverStops,
  unloadedByAdministrator,
} from "./manage/failures.ts";
import type { ModelUse } from "./manage/instance.ts";
import { ModelMemory } from "./manage/memory.ts";
import { ModelRegistry, nameOf } from "./manage/registry.ts";
import { type LoadPlan, Resident } from "./manage/resident.ts";
import type { EngineInfo, LoadOptions } from "./types.ts";

/** Files put into the directory by hand are found within this time, ms. */
const SCAN_MS = 30_000;
/** Requests in work may finish for so long before their model is unloaded, ms. */
const UNLOAD_GRACE_MS = 30_000;
/** Closing takes no longer, ms: what has not ended by then ends with this process. */
const CLOSE_MS = 5_000;

export interface LocalModelsOptions {
  db: Db;
  config: Pick<Config, "llm" | "hub" | "billing" | "dataDir">;
  log: Log;
  /** What the machine has, where its own figures are not meant. */
  readMemory?: () => Memory;
  unloadGraceMs?: number;
}

/** The models of this machine: which there are, which are loaded, and how they come and go. One per process. */
export class LocalModels {
  readonly #db: Db;
  readonly #config: LocalModelsOptions["config"];
  readonly #log: Log;
  readonly #graceMs: number;
  readonly #registry: ModelRegistry;
  readonly #memory: ModelMemory;
  readonly #downloads: Downloads;
  readonly #residents = new Map<string, Resident>();
  readonly #entrance = new Serial();
  #scans: Repeating | undefined;
  #closed: Promise<void> | undefined;

  /** Nothing is loaded; the models directory has been looked through. */
  static async open(options: LocalModelsOptions): Promise<LocalModels> {
    const models = new LocalModels(options);
    await resetLoaded(options.db);
    await models.#scan();
    models.#scans = repeat(options.log, "models directory", SCAN_MS, () => models.#scan());
    return models;
  }

  private constructor({ db, config, log, readMemory, unloadGraceMs = UNLOAD_GRACE_MS }: LocalModelsOptions) {
    const directory = config.llm.modelsDir ?? join(config.dataDir, "models");
    this.#db = db;
    this.#config = config;
    this.#log = log;
    this.#graceMs = unloadGraceMs;
    this.#registry = new ModelRegistry({ db, directory, log });
    this.#memory = new ModelMemory({
      reserveBytes: config.llm.memoryReserveBytes,
      idle: () => this.#idle(),
      read: readMemory,
    });
    this.#downloads = new Downloads({
      ...{ directory, hub: config.hub, log },
      install: (model, request, startedAt) => this.#install(model, request, startedAt),
    });
  }

  /**
   * A loaded model for one request, loaded for it if need be. It is not unloaded for idleness or for another model until it
   * is disposed of.
   * @throws ApiError 404 `model_not_found`; 503 `model_unloaded`, `insufficient_memory`, `engine_crashed`; 422
   * `invalid_model`; 504 `model_load_timeout`; the signal's reason.
   */
  async open(model_id: string, signal: AbortSignal): Promise<ModelUse> {
    try {
      this.#throwIfClosed();
      const resident = this.#residents.get(model_id) ?? this.#resident(await this.#registry.find(model_id));
      return await resident.open(signal, async () => {
        const row = await this.#registry.find(model_id);
        if (!row.enabled) throw unloadedByAdministrator(model_id);
        if (!this.#config.llm.autoload) throw notLoaded(model_id);
        return this.#plan(row, configOf(row));
      });
    } catch (error) {
      throw forClients(error);
    }
  }

  /**
   * Load a model, again if it is loaded with another configuration: requests in work finish first. From now on requests
   * load it, too. A load that fails changes nothing of what is kept.
   * @throws AppError ModelNotFound, InvalidModel, Unavailable (memory), EngineUnavailable, Timeout.
   */
  async loadModel(model_id: string, config?: LoadConfig): Promise<LocalModelView> {
    this.#throwIfClosed();
    const resident = await this.#ordered(model_id);
    return resident.orders.run(async () => {
      this.#throwIfClosed();
      const row = await this.#registry.find(model_id);
      const load_config = config ?? configOf(row);
      await resident.load(await this.#plan(row, load_config));
      await setModelState(this.#db, model_id, { enabled: true, load_config });
      return this.#view(await this.#registry.find(model_id));
    });
  }

  /**
   * End a model; requests in work may finish. It stays unloaded until somebody loads it.
   * @throws AppError ModelNotFound.
   */
  async unloadModel(model_id: string): Promise<LocalModelView> {
    const resident = await this.#ordered(model_id);
    resident.refuse(unloadedByAdministrator(model_id));
    return resident.orders.run(async () => {
      await setModelState(this.#db, model_id, { enabled: false });
      // An order before this one may have loaded it.
      resident.refuse(unloadedByAdministrator(model_id));
      await resident.end();
      return this.#view(await this.#registry.find(model_id));
    });
  }

  /**
   * Fetch a model's file in the background, see `downloads` and `watch`; `config` is how it will be loaded.
   * @throws AppError InvalidParams, Conflict, RateLimited.
   */
  async downloadModel(
    huggingface_url: string,
    { model_id, config }: { model_id?: string | undefined; config?: LoadConfig | undefined } = {},
  ): Promise<DownloadView> {
    const source = parseModelUrl(huggingface_url, this.#config.hub.endpoint);
    const file = "file" in source ? source.file.split("/").at(-1) : undefined;
    const name = model_id ?? (file === undefined ? undefined : nameOf(file));
    if (name !== undefined) {
      checkName(name);
      const known = (await this.#registry.list()).find((row) => row.name === name);
      if (known !== undefined && file !== undefined && known.file !== file) {
        throw new AppError("Conflict", `The model "${name}" is installed already: ${known.file}.`, {
          hint: "Remove it first, or give this one another model_id.",
        });
      }
    }
    return this.#downloads.start({ source, url: huggingface_url.trim(), model_id: name, config });
  }

  /** Every installed model by name, those included that have just been put into the directory. */
  async listModels(): Promise<LocalModelView[]> {
    await this.#scan();
    return (await this.#registry.list()).map((row) => this.#view(row));
  }

  /** Unload a model and delete its file. @throws AppError ModelNotFound, Unavailable when the system refuses. */
  async removeModel(model_id: string): Promise<void> {
    const resident = await this.#ordered(model_id);
    resident.refuse(modelNotFound(model_id));
    await resident.orders.run(async () => {
      resident.refuse(modelNotFound(model_id));
      await resident.end();
      try {
        await this.#registry.remove(await this.#registry.find(model_id));
      } catch (error) {
        resident.allow();
        throw error;
      }
      if (this.#residents.get(model_id) === resident) this.#residents.delete(model_id);
    });
  }

  /** Every download this process knows of, the latest last. */
  downloads(): DownloadView[] {
    return this.#downloads.list();
  }

  /** @throws AppError NotFound. */
  cancelDownload(id: string): Promise<DownloadView> {
    return this.#downloads.cancel(id);
  }

  /** A download now and at every change, until it is over. @throws AppError NotFound, at once. */
  watch(id: string, signal: AbortSignal): AsyncIterable<DownloadView> {
    return this.#downloads.watch(id, signal);
  }

  /** What the machine has, and what each loaded model takes of it. */
  async status(): Promise<LocalModelsStatus> {
    const { totalBytes, availableBytes } = this.#memory.read();
    const views = [...this.#residents.values()].map((resident) => loadedView(resident));
    return {
      memory: {
        total_bytes: totalBytes,
        available_bytes: availableBytes,
        reserve_bytes: this.#config.llm.memoryReserveBytes,
      },
      models: (await Promise.all(views)).filter((view) => view !== undefined),
      downloads: this.#downloads.active,
    };
  }

  /** Resident memory of every loaded model, bytes by name. */
  async memory(): Promise<ReadonlyMap<string, number>> {
    const loaded = [...this.#residents.values()].flatMap(({ name, loaded }) =>
      loaded === undefined ? [] : [{ name, bytes: loaded.model.memoryBytes() }],
    );
    return new Map(await Promise.all(loaded.map(async ({ name, bytes }) => [name, await bytes] as const)));
  }

  /** End every model and every download; requests in work fail. Bounded, idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const residents = [...this.#residents.values()];
    for (const resident of residents) resident.refuse(serverStops());
    const ended = Promise.all([
      this.#scans?.close(),
      this.#downloads.close(),
      ...residents.map((resident) => resident.end(0)),
    ]);
    const timer = new AbortController();
    const late = sleep(CLOSE_MS, "late" as const, { signal: timer.signal });
    late.catch(() => undefined);
    if ((await Promise.race([ended, late])) === "late") this.#log.error("local models did not end in time");
    timer.abort();
  }

  #throwIfClosed(): void {
    if (this.#closed !== undefined) throw serverStops();
  }

  /** Orders are carried out as they came, however long the database takes to find whom they are about. */
  #ordered(model_id: string): Promise<Resident> {
    return this.#entrance.run(async () => this.#resident(await this.#registry.find(model_id)));
  }

  #resident({ name }: LocalModelRow): Resident {
    const known = this.#residents.get(name);
    if (known !== undefined) return known;
    this.#throwIfClosed();
    const { maxWaiting, loadTimeoutMs, idleUnloadMs } = this.#config.llm;
    const resident = new Resident(name, {
      log: this.#log,
      memory: this.#memory,
      limits: { waiting: maxWaiting, loadMs: loadTimeoutMs },
      idleMs: idleUnloadMs,
      graceMs: this.#graceMs,
      onChange: (model_id, info) => this.#note(model_id, info),
    });
    this.#residents.set(name, resident);
    return resident;
  }

  async #plan(row: LocalModelRow, config: LoadConfig): Promise<LoadPlan> {
    const { threads, contextSize, sequences } = this.#config.llm;
    const options: LoadOptions = { threads, context_size: contextSize, sequences, ...given(config) };
    return { path: await this.#registry.pathOf(row), options };
  }

  /** For whoever reads the database; the model itself does not depend on it. */
  async #note(model_id: string, info: EngineInfo | undefined): Promise<void> {
    const { kind, context_size } = info ?? {};
    try {
      await setModelState(this.#db, model_id, {
        is_loaded: info !== undefined,
        ...(kind === undefined || context_size === undefined ? {} : { kind, context_size }),
      });
    } catch (error) {
      this.#log.warn({ err: error, model_id }, "whether a model is loaded could not be written down");
    }
  }

  #idle() {
    return [...this.#residents.values()]
      .flatMap(({ idle }) => (idle === undefined ? [] : [idle]))
      .sort((one, other) => one.since - other.since);
  }

  /** A model whose file is gone or another one does not stay loaded. */
  async #scan(): Promise<void> {
    for (const name of await this.#registry.scan()) {
      const resident = this.#residents.get(name);
      resident?.forgetFailures();
      void resident?.end();
    }
  }

  async #install(
    { file, bytes, sha256, source_url }: DownloadedModel,
    { model_id, config }: DownloadRequest,
    startedAt: number,
  ): Promise<string> {
    const name = model_id ?? nameOf(file);
    checkName(name);
    const known = { name, file, size_bytes: bytes, sha256, huggingface_url: source_url };
    await this.#registry.install(known, startedAt);
    if (config !== undefined) await setModelState(this.#db, name, { load_config: config });
    this.#residents.get(name)?.forgetFailures();
    return name;
  }

  #view(row: LocalModelRow): LocalModelView {
    const { name, file, kind, size_bytes, sha256, huggingface_url, enabled, added_at } = row;
    const state = this.#residents.get(name)?.state ?? "unloaded";
    const price = priceOf(row, this.#config.billing);
    return {
      ...{ name, file, kind, size_bytes, sha256, huggingface_url, enabled },
      is_loaded: state === "loaded",
      state,
      config: configOf(row),
      price: {
        input_per_million: price.inputPerMillion,
        cached_per_million: price.cachedPerMillion,
        output_per_million: price.outputPerMillion,
      },
      added_at: added_at?.toISOString() ?? null,
    };
  }
}

async function loadedView({ name, loaded }: Resident): Promise<LoadedModelView | undefined> {
  if (loaded === undefined) return undefined;
  const { model, loadedAt } = loaded;
  const { kind, architecture, threads, context_size, sequences } = model.info;
  return {
    model_id: name,
    ...{ kind, architecture, pid: model.pid, memory_bytes: await model.memoryBytes() },
    ...{ threads, context_size, sequences, sessions: model.active },
    loaded_at: loadedAt.toISOString(),
  };
}

/** As it is kept; what an earlier version kept and nobody understands any more counts as nothing. */
function configOf({ load_config }: LocalModelRow): LoadConfig {
  return loadConfigSchema.safeParse(load_config).data ?? {};
}

/** Without what is undefined: it would hide the server's own choice. */
function given(config: LoadConfig): LoadConfig {
  return Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
}

/** @throws AppError InvalidParams. */
function checkName(name: string): void {
  const checked = localModelNameSchema.safeParse(name);
  if (checked.success && name !== DEMO_MODEL) return;
  const why = checked.error?.issues[0]?.message ?? `"${DEMO_MODEL}" is the scripted model`;
  throw new AppError("InvalidParams", `"${name}" cannot be a model's name: ${why}.`, {
    hint: "Give the model another name: model_id.",
    issues: [{ path: "model_id", message: why }],
  });
}
