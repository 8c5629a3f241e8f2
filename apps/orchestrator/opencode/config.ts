import type { Agent } from "#agents";

/** Where things lie inside the sandbox. */
export const INSIDE = {
  home: "/home/agent",
  /** Writable; holds the present request's directory, at the same place for every task of a process. */
  area: "/workspace",
  request: "/workspace/request",
  /** The agent's working directory: a new one would cost opencode 130 ms and 10 MB each (measured). */
  work: "/workspace/request/work",
  binary: "/opt/opencode/opencode",
  /** Read-only: configuration directory and an empty model catalogue. */
  settings: "/opt/cyberdevstudio",
  /** The server's own Node, for projects on machines that have no other in /usr. */
  node: "/opt/node/node",
  models: "/opt/cyberdevstudio/models.json",
} as const;

/** opencode is told one provider with one model; the bridge puts the task's real model in. */
const PROVIDER_ID = "gateway";
const CONTEXT_TOKENS = 128_000;
const OUTPUT_TOKENS = 8192;

/** opencode's own agents: nothing may be asked of them by accident, and `title` would cost a call per task. */
const BUILT_IN_AGENTS = ["title", "build", "plan", "general", "explore", "scout"];

/** What the shell and tools may touch outside the working directory; the rest would be lost or is none of its business. */
const OUTSIDE = {
  "*": "deny",
  "/tmp/*": "allow",
  "/dev/*": "allow",
  "/proc/*": "allow",
  "/usr/*": "allow",
  "/etc/*": "allow",
  [`${INSIDE.request}/*`]: "allow",
} as const;

export interface OpencodeConfigOptions {
  readonly model: string;
  /** OpenAI-compatible base, with `/v1`. */
  readonly baseUrl: string;
  /** Sent as the bearer token; inside a sandbox a placeholder, which the bridge replaces. */
  readonly apiKey: string;
  /** Ours, in place of opencode's own; left out: opencode's. */
  readonly agents?: readonly Agent[];
  readonly maxOutputTokens?: number;
}

/** The whole configuration opencode gets: one provider, every permission decided, nothing that phones home. */
export function opencodeConfig(options: OpencodeConfigOptions): Record<string, unknown> {
  const { model, baseUrl, apiKey, agents, maxOutputTokens = OUTPUT_TOKENS } = options;
  const name = `${PROVIDER_ID}/${model}`;
  const limit = { context: CONTEXT_TOKENS, output: maxOutputTokens };
  return {
    $schema: "https://opencode.ai/config.json",
    autoupdate: false,
    share: "disabled",
    snapshot: false,
    lsp: false,
    formatter: false,
    enabled_providers: [PROVIDER_ID],
    model: name,
    small_model: name,
    provider: {
      [PROVIDER_ID]: {
        npm: "@ai-sdk/openai-compatible",
        name: "CyberDevStudio",
        options: { baseURL: baseUrl, apiKey },
        models: { [model]: { name: model, tool_call: true, limit } },
      },
    },
    permission: {
      "*": "allow",
      webfetch: "deny",
      websearch: "deny",
      doom_loop: "deny",
      question: "deny",
      external_directory: OUTSIDE,
    },
    ...(agents === undefined ? {} : agentSection(agents)),
  };
}

function agentSection(agents: readonly Agent[]): Record<string, unknown> {
  const disabled = BUILT_IN_AGENTS.map((name) => [name, { disable: true }] as const);
  const ours = agents.map(({ name, description, setup }) => {
    const { external_directory, ...permission } = setup.permission;
    const outside = external_directory === "allow" ? "allow" : OUTSIDE;
    const temperature = setup.temperature === undefined ? {} : { temperature: setup.temperature };
    const settings = {
      mode: "primary",
      description,
      prompt: setup.prompt,
      ...temperature,
      permission: { ...permission, external_directory: outside },
    };
    return [name, settings] as const;
  });
  return {
    agent: Object.fromEntries([...disabled, ...ours]),
    default_agent: agents[0]?.name,
    // AGENTS.md is the project's word to agents; the rest of its agent configuration is kept away from opencode.
    instructions: [`${INSIDE.work}/AGENTS.md`],
  };
}

export interface OpencodeEnvironmentOptions {
  readonly home: string;
  /** A file holding `{}`: without it opencode builds its catalogue of all models, 230 MB and a second. */
  readonly modelsPath: string;
  readonly config: Record<string, unknown>;
  /** Where opencode looks for `opencode/`; read-only and with a .gitignore in it, or it installs packages there. */
  readonly configHome?: string;
  /** Guards the HTTP server that `opencode acp` opens on loopback. */
  readonly serverPassword?: string;
  /** Whether it loads what the project brings for agents' programs: plugins, tools, agents, other servers. */
  readonly agentConfig?: boolean;
}

/** opencode's environment: offline, without plugins, watchers, updates and other tools' configuration. */
export function opencodeEnvironment(options: OpencodeEnvironmentOptions): Record<string, string> {
  const { home, modelsPath, config, configHome, serverPassword, agentConfig = false } = options;
  const off = agentConfig ? ALWAYS_OFF : [...ALWAYS_OFF, ...OFF_FOR_PROJECTS];
  return {
    HOME: home,
    ...(configHome === undefined ? {} : { XDG_CONFIG_HOME: configHome }),
    ...(serverPassword === undefined ? {} : { OPENCODE_SERVER_PASSWORD: serverPassword }),
    OPENCODE_CONFIG_CONTENT: JSON.stringify(config),
    OPENCODE_MODELS_PATH: modelsPath,
    ...(agentConfig ? {} : { OPENCODE_PURE: "1" }),
    OPENCODE_EXPERIMENTAL_DISABLE_FILEWATCHER: "1",
    ...Object.fromEntries(off.map((name) => [`OPENCODE_DISABLE_${name}`, "1"])),
  };
}

const ALWAYS_OFF = ["MODELS_FETCH", "AUTOUPDATE", "LSP_DOWNLOAD", "DEFAULT_PLUGINS", "SHARE"];
const OFF_FOR_PROJECTS = ["PROJECT_CONFIG", "CLAUDE_CODE", "EXTERNAL_SKILLS"];
