import { randomBytes } from "node:crypto";
import { availableParallelism, hostname } from "node:os";
import { resolve } from "node:path";
import { bareUrl, type Env, flag, integer, list, number, oneOf, path, text, url } from "./read-env.ts";

const MIB = 1024 * 1024;

/** Everything a person can set, typed, with its default. Durations in ms, sizes in bytes, unless named. */
export function readConfig(env: Env = process.env, cwd: string = process.cwd()) {
  const defaultRunner = oneOf(env, "CDS_RUNNER", "native", ["native", "opencode"]);
  const inputPerMillion = integer(env, "CDS_PRICE_INPUT_PER_MILLION", 1_000_000, 0, 1e12);
  return {
    /** Names this process among several that share a database. */
    instanceId: text(env, "INSTANCE_ID", `${hostname()}-${process.pid}-${randomBytes(3).toString("hex")}`),
    production: text(env, "NODE_ENV") === "production",
    host: text(env, "CDS_HOST", "127.0.0.1"),
    dataDir: resolve(cwd, text(env, "CDS_DATA_DIR", "data")),
    /** Whether the data directory was named by a person (then it is never moved elsewhere). */
    dataDirGiven: text(env, "CDS_DATA_DIR") !== undefined,
    ports: {
      /** 0 = any free port. `PORT` is the OpenCode gateway's own name for the one origin. */
      ui: integer(env, "CDS_UI_PORT", integer(env, "PORT", 6711, 0, 65_535), 0, 65_535),
      api: integer(env, "CDS_API_PORT", 6813, 0, 65_535),
      auth: integer(env, "CDS_AUTH_PORT", 6971, 0, 65_535),
      llm: integer(env, "CDS_LLM_PORT", 6988, 0, 65_535),
    },
    /** Origins besides our own that a browser may call from. */
    allowedOrigins: list(env, "CDS_ALLOWED_ORIGINS"),
    /** Proxies in front of us whose X-Forwarded-For is believed (addresses or CIDR). */
    trustedProxies: list(env, "CDS_TRUSTED_PROXIES"),
    log: {
      level: oneOf(env, "LOG_LEVEL", text(env, "NODE_ENV") === "production" ? "info" : "warn", [
        "trace",
        "debug",
        "info",
        "warn",
        "error",
        "fatal",
        "silent",
      ]),
      pretty: flag(env, "CDS_LOG_PRETTY", text(env, "NODE_ENV") !== "production"),
    },
    admin: {
      username: text(env, "CDS_ADMIN_USERNAME", "admin"),
      password: text(env, "CDS_ADMIN_PASSWORD"),
    },
    /** Master secret for stored keys and tokens, 32+ characters; else a file in the data directory. */
    masterKey: text(env, "CDS_MASTER_KEY"),
    database: {
      url: text(env, "DATABASE_URL"),
      /** 18 connections are as fast as 25 here and stay below 20 active (DB-3). */
      pool: integer(env, "CDS_DB_POOL", 18, 2, 200),
      connectTimeoutMs: integer(env, "CDS_DB_CONNECT_TIMEOUT_MS", 15_000, 100, 120_000),
      statementTimeoutMs: integer(env, "CDS_DB_STATEMENT_TIMEOUT_MS", 30_000, 100, 600_000),
    },
    auth: {
      accessTokenSeconds: integer(env, "CDS_ACCESS_TOKEN_SECONDS", 3600, 5, 86_400),
      refreshTokenSeconds: integer(env, "CDS_REFRESH_TOKEN_SECONDS", 30 * 86_400, 60, 365 * 86_400),
      allowRegistration: flag(env, "CDS_ALLOW_REGISTRATION", true),
    },
    limits: {
      /** Sustained requests per second and the burst above it. */
      requestsPerUser: number(env, "CDS_REQUESTS_PER_USER", 50, 0.1, 1e6),
      requestsPerUserBurst: integer(env, "CDS_REQUESTS_PER_USER_BURST", 200, 1, 1e6),
      requestsPerIp: number(env, "CDS_REQUESTS_PER_IP", 200, 0.1, 1e6),
      requestsPerIpBurst: integer(env, "CDS_REQUESTS_PER_IP_BURST", 800, 1, 1e6),
      /** Sign-in attempts per address and per name: the password check is slow on purpose. */
      loginsPerMinute: number(env, "CDS_LOGINS_PER_MINUTE", 30, 0.1, 1e6),
      bodyBytes: integer(env, "CDS_MAX_BODY_BYTES", 16 * MIB, 1024, 512 * MIB),
      archiveBytes: integer(env, "CDS_MAX_ARCHIVE_BYTES", 64 * MIB, 1024, 1024 * MIB),
      batch: integer(env, "CDS_MAX_BATCH", 50, 1, 1000),
      socketsPerUser: integer(env, "CDS_MAX_SOCKETS_PER_USER", 20, 1, 1000),
      subscriptionsPerSocket: integer(env, "CDS_MAX_SUBSCRIPTIONS", 50, 1, 1000),
    },
    quota: {
      fileBytes: integer(env, "CDS_MAX_FILE_BYTES", 10 * MIB, 1024, 256 * MIB),
      projectBytes: integer(env, "CDS_MAX_PROJECT_BYTES", 256 * MIB, 1024, 16_384 * MIB),
      projectFiles: integer(env, "CDS_MAX_PROJECT_FILES", 20_000, 1, 200_000),
      userBytes: integer(env, "CDS_MAX_USER_BYTES", 1024 * MIB, 1024, 1e15),
      userProjects: integer(env, "CDS_MAX_USER_PROJECTS", 500, 1, 100_000),
    },
    provider: {
      apiKey: text(env, "OPENAI_API_KEY"),
      baseUrl: url(env, "OPENAI_BASE_URL") ?? "https://api.openai.com/v1",
      models: list(env, "OPENAI_MODELS"),
      /**
       * Whether users' providers may live on loopback or in a private network (link-local ones never may): by
       * default only while nobody else can reach this server. The server's own base URL may always.
       */
      allowPrivateHosts: flag(
        env,
        "CDS_PROVIDER_ALLOW_PRIVATE_HOSTS",
        isLoopback(text(env, "CDS_HOST", "127.0.0.1")),
      ),
      connectTimeoutMs: integer(env, "CDS_PROVIDER_CONNECT_TIMEOUT_MS", 10_000, 10, 120_000),
      firstByteTimeoutMs: integer(env, "CDS_PROVIDER_FIRST_BYTE_TIMEOUT_MS", 60_000, 10, 600_000),
      idleTimeoutMs: integer(env, "CDS_PROVIDER_IDLE_TIMEOUT_MS", 60_000, 10, 600_000),
      attempts: integer(env, "CDS_PROVIDER_ATTEMPTS", 3, 1, 10),
    },
    /** Where model files are downloaded from. */
    hub: {
      endpoint: bareUrl(env, "HF_ENDPOINT") ?? "https://huggingface.co",
      /** The operator's own choice may lead to a private network, as the server's own provider may. */
      endpointGiven: text(env, "HF_ENDPOINT") !== undefined,
      /** Sent to the endpoint only, never to a host it redirects to. */
      token: text(env, "HF_TOKEN"),
      /** Hosts a download may lead to besides the endpoint's own; `*.` in front means every name below. */
      allowedHosts: list(env, "CDS_MODEL_HOSTS", ["huggingface.co", "*.huggingface.co", "*.hf.co"]),
      maxModelBytes: integer(env, "CDS_MAX_MODEL_BYTES", 16_384 * MIB, 1024, 1e15),
      idleTimeoutMs: integer(env, "CDS_DOWNLOAD_IDLE_TIMEOUT_MS", 30_000, 10, 600_000),
    },
    llm: {
      /** GGUF files of local models; not given: `models` in the data directory. */
      modelsDir: path(env, "CDS_MODELS_DIR", cwd),
      /** Whether a request loads the model it names; else an administrator does. */
      autoload: flag(env, "CDS_LLM_AUTOLOAD", true),
      /** Threads of one model; more than there are free cores makes all of them slow. */
      threads: integer(env, "CDS_LLM_THREADS", 1, 1, 256),
      /** Tokens one request can hold, prompt and answer. */
      contextSize: integer(env, "CDS_LLM_CONTEXT", 4096, 32, 10_000_000),
      /** Requests one model works on together. */
      sequences: integer(env, "CDS_LLM_SEQUENCES", 4, 1, 256),
      /** Requests that may wait for one model. */
      maxWaiting: integer(env, "CDS_LLM_MAX_WAITING", 64, 0, 100_000),
      /** Without a request for so long a model is unloaded; 0 = never. */
      idleUnloadMs: integer(env, "CDS_LLM_IDLE_UNLOAD_MS", 15 * 60_000, 0, 7 * 86_400_000),
      /** Never taken by a model: what everything else on the machine needs. */
      memoryReserveBytes: integer(env, "CDS_LLM_MEMORY_RESERVE_MB", 1024, 0, 10_000_000) * MIB,
      loadTimeoutMs: integer(env, "CDS_LLM_LOAD_TIMEOUT_MS", 120_000, 100, 3_600_000),
    },
    /** What the model server answers per minute, for each user and each API key; 0 = no limit. Tasks have their own. */
    llmLimits: {
      user: {
        requestsPerMinute: integer(env, "CDS_LLM_REQUESTS_PER_MINUTE", 1200, 0, 1e9),
        tokensPerMinute: integer(env, "CDS_LLM_TOKENS_PER_MINUTE", 2_000_000, 0, 1e12),
      },
      key: {
        requestsPerMinute: integer(env, "CDS_LLM_KEY_REQUESTS_PER_MINUTE", 600, 0, 1e9),
        tokensPerMinute: integer(env, "CDS_LLM_KEY_TOKENS_PER_MINUTE", 1_000_000, 0, 1e12),
      },
    },
    /** Lets Prometheus read /metrics from another machine. */
    metricsToken: text(env, "CDS_METRICS_TOKEN"),
    billing: {
      initialBalance: integer(env, "CDS_INITIAL_BALANCE", 20_000_000, 0, Number.MAX_SAFE_INTEGER),
      /** Held when a task is queued, its hard ceiling. */
      taskBudget: integer(env, "CDS_TASK_BUDGET", 1_000_000, 1, Number.MAX_SAFE_INTEGER),
      inputPerMillion,
      /** Of input the provider had cached; at most the input price, for holds reckon without a cache. */
      cachedPerMillion: integer(env, "CDS_PRICE_CACHED_PER_MILLION", inputPerMillion, 0, inputPerMillion),
      outputPerMillion: integer(env, "CDS_PRICE_OUTPUT_PER_MILLION", 4_000_000, 0, 1e12),
    },
    queue: {
      /** Agents at once on this instance; both names are the user's own. */
      maxConcurrent: integer(
        env,
        "MAX_CONCURRENT_USERS",
        integer(env, "MAX_CONCURRENT_PROCESSES", 20, 1, 1000),
        1,
        1000,
      ),
      perUser: integer(env, "CDS_MAX_ACTIVE_PER_USER", 1, 1, 100),
      pendingPerUser: integer(env, "CDS_MAX_PENDING_PER_USER", 50, 1, 10_000),
      secondsBetweenRequests: number(env, "CDS_RATE_LIMIT_SECONDS", 30, 0, 3600),
      memoryThreshold: number(env, "CDS_MEMORY_THRESHOLD", 0.85, 0.01, 1),
      diskThreshold: number(env, "CDS_DISK_THRESHOLD", 0.9, 0.01, 1),
      leaseMs: integer(env, "CDS_LEASE_MS", 5000, 500, 120_000),
      attempts: integer(env, "CDS_TASK_ATTEMPTS", 3, 1, 10),
    },
    run: {
      timeoutMs: integer(env, "CDS_RUN_TIMEOUT_MS", 300_000, 1000, 86_400_000),
      /** No event from the agent for this long ends the run. */
      silenceMs: integer(env, "CDS_RUN_SILENCE_MS", 60_000, 1000, 3_600_000),
      /** What drives an agent when nobody says otherwise. */
      defaultRunner,
      /** Longest time for one command that a result is judged by. */
      checkTimeoutMs: integer(env, "CDS_CHECK_TIMEOUT_MS", 120_000, 1000, 3_600_000),
      /** A paused run keeps its place so long; then it goes back into the queue, to start anew when it is resumed. */
      pauseMs: integer(env, "CDS_PAUSE_MS", 10 * 60_000, 1000, 86_400_000),
      memoryBytes: integer(env, "CDS_RUN_MEMORY_MB", 512, 64, 65_536) * MIB,
      /** What admission reckons per opencode process; measured 365-418 MB. */
      memoryEstimateBytes: 450 * MIB,
      maxOutputTokens: integer(env, "CDS_MAX_TOKENS", 8192, 1, 1_000_000),
      /** Model calls one task may make: opencode's own `steps` is advisory. */
      maxModelCalls: integer(env, "CDS_MAX_MODEL_CALLS", 60, 1, 10_000),
      coldStarts: integer(env, "CDS_COLD_STARTS", availableParallelism(), 1, 64),
      warmProcesses: integer(env, "CDS_WARM_PROCESSES", 12, 0, 1000),
      warmIdleMs: integer(env, "CDS_WARM_IDLE_MS", 30 * 60_000, 1000, 86_400_000),
      spareProcesses: integer(env, "CDS_SPARE_PROCESSES", defaultRunner === "opencode" ? 1 : 0, 0, 64),
      opencodeBin: text(env, "OPENCODE_BIN"),
      tempDirPrefix: text(env, "TEMP_DIR_PREFIX", "cds-"),
    },
    /** Programs, terminals, modules and machines that people drive by hand. */
    workbench: {
      /** Projects with their files on disk at once. */
      workspaces: integer(env, "CDS_MAX_WORKSPACES", 64, 1, 10_000),
      /** What one of them may take of the disk, installed packages and HOME included. */
      workspaceBytes: integer(env, "CDS_WORKSPACE_MB", 2048, 16, 1_000_000) * MIB,
      programsPerUser: integer(env, "CDS_PROGRAMS_PER_USER", 8, 1, 1000),
      terminalsPerUser: integer(env, "CDS_TERMINALS_PER_USER", 4, 1, 1000),
      /** How long a terminal lives on that no connection shows. */
      detachedMs: integer(env, "CDS_TERMINAL_DETACHED_MS", 10 * 60_000, 1000, 86_400_000),
      /** Of each of a program's two streams, in an answer. */
      outputBytes: integer(env, "CDS_RUN_OUTPUT_KB", 1024, 1, 65_536) * 1024,
      /** Cores one program may use; 0 = what is free. */
      cpus: number(env, "CDS_RUN_CPUS", 0, 0, 1024),
      processes: integer(env, "CDS_RUN_PROCESSES", 256, 8, 32_768),
      /** Hosts that programs may be given access to: none unless named. */
      hosts: list(env, "CDS_SANDBOX_HOSTS"),
      /** How far their names may lead: to the internet, into private networks, to this very machine. */
      reach: oneOf(env, "CDS_SANDBOX_REACH", "public", ["public", "private", "machine"]),
    },
    wasm: {
      instancesPerUser: integer(env, "CDS_WASM_PER_USER", 8, 1, 1000),
      memoryBytes: integer(env, "CDS_WASM_MEMORY_MB", 64, 1, 4096) * MIB,
      maxMemoryBytes: integer(env, "CDS_WASM_MAX_MEMORY_MB", 512, 1, 4096) * MIB,
      /** Fuel of a call that names none. */
      fuel: integer(env, "CDS_WASM_FUEL", 10_000_000_000, 1, 1e15),
      timeoutMs: integer(env, "CDS_WASM_TIMEOUT_MS", 30_000, 1, 86_400_000),
      /** Without a call for so long an instance is ended. */
      idleMs: integer(env, "CDS_WASM_IDLE_MS", 30 * 60_000, 1000, 86_400_000),
    },
    micro: {
      machinesPerUser: integer(env, "CDS_VM_PER_USER", 2, 1, 1000),
      /** All users' together. */
      machines: integer(env, "CDS_VM_MAX", 8, 0, 1000),
      memoryBytes: integer(env, "CDS_VM_MEMORY_MB", 256, 128, 65_536) * MIB,
      diskBytes: integer(env, "CDS_VM_DISK_MB", 64, 8, 65_536) * MIB,
      /** Machines kept ready per image; 0 = none, each is restored when it is asked for. */
      pool: integer(env, "CDS_VM_POOL", 1, 0, 100),
      idleMs: integer(env, "CDS_VM_IDLE_MS", 10 * 60_000, 1000, 86_400_000),
      snapshotsPerUser: integer(env, "CDS_VM_SNAPSHOTS_PER_USER", 4, 0, 1000),
      /** Where `npm run micro` put the images; not given: .runtime/micro of the program's own directory. */
      imageDir: path(env, "CDS_VM_IMAGES", cwd),
    },
    /** Clearing away what nobody uses any more (MU-7). */
    cleanup: {
      everyMs: integer(env, "CDS_CLEANUP_EVERY_MS", 5 * 60_000, 1000, 86_400_000),
      maxAgeMs: integer(env, "CDS_CLEANUP_AGE_MS", 30 * 60_000, 1000, 30 * 86_400_000),
      /** Share of the disk from which on the oldest goes first, whatever its age, until 0.8 of that is reached. */
      diskThreshold: number(env, "CDS_CLEANUP_DISK_THRESHOLD", 0.85, 0.01, 1),
    },
    shutdownGraceMs: integer(env, "CDS_SHUTDOWN_GRACE_MS", 10_000, 0, 600_000),
  };
}

export type Config = ReturnType<typeof readConfig>;

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\./.test(host);
}
