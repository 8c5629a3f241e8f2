import type { Config } from "#platform/config/config.ts";
import type { Secrets } from "#platform/secrets.ts";
import { AppError } from "#schemas";
import { listLocalModels } from "../models/index.ts";
import type { Db } from "../schema.ts";
import { type Price, priceOf } from "./prices.ts";

/** The scripted model that needs no key and is no AI. */
export const DEMO_MODEL = "demo";

/** Where a call goes. A `user` route only ever holds the user's own key, a `server` route the server's. */
export type ProviderRoute =
  | { source: "demo" }
  /** A model of this machine. */
  | { source: "local" }
  | { source: "user" | "server"; base_url: string; api_key: string };

export interface UsableModel extends Price {
  id: string;
  source: ProviderRoute["source"];
  /** It makes vectors and writes no text. */
  embedding: boolean;
}

export interface ResolveOptions {
  secrets: Secrets;
  /** The server's own provider, from the environment. */
  provider: Pick<Config["provider"], "apiKey" | "baseUrl" | "models">;
  user_id: string;
  model: string;
}

/**
 * What a stored provider key is sealed to: opened for another user or another host, it is refused.
 * A key stored for one host is therefore never sent to another.
 */
export function providerContext(user_id: string, base_url: string): string {
  return `provider:${user_id}:${new URL(base_url).host}`;
}

/**
 * Who answers a call of `user_id` to `model`, and with whose key (MU-4): the user's own provider when it lists the name,
 * a model of this machine, the user's own provider for any name, then the server's, then an error. A list of models
 * limits what a provider is asked for, an empty one does not; a user who has an own key reaches the server's provider
 * only for models that one lists by name.
 * @throws AppError NoProviderKey, ModelNotFound.
 */
export async function resolveProvider(db: Db, options: ResolveOptions): Promise<ProviderRoute> {
  return decide(await findRoute(db, options), options);
}

/**
 * Where one call goes and what it costs, in one query: this stands before every first token.
 * @throws AppError as `resolveProvider`.
 */
export async function resolveCall(
  db: Db,
  options: ResolveOptions & { billing: Config["billing"] },
): Promise<{ route: ProviderRoute; price: Price }> {
  const row = await findRoute(db, options);
  return { route: decide(row, options), price: priceOf(row, options.billing) };
}

/** All that is known of a user's provider and of a model's name. */
function findRoute(db: Db, { user_id, model }: ResolveOptions) {
  return db
    .selectFrom("users")
    .leftJoin("providers", "providers.user_id", "users.id")
    .leftJoin("models", (join) => join.on("models.name", "=", model))
    .select(["base_url", "api_key_encrypted", "providers.models", "file"])
    .select(["input_cost_per_million", "cached_cost_per_million", "output_cost_per_million"])
    .where("users.id", "=", user_id)
    .executeTakeFirst();
}

type RouteRow = Awaited<ReturnType<typeof findRoute>>;

interface KeyedProvider {
  base_url: string;
  api_key_encrypted: Buffer;
  models: string[];
}

function decide(row: RouteRow, options: ResolveOptions): ProviderRoute {
  const { secrets, provider, user_id, model } = options;
  if (model === DEMO_MODEL) return { source: "demo" };
  const own = keyed(row);
  if (row?.file != null && own?.models.includes(model) !== true) return { source: "local" };
  if (own !== undefined && (own.models.length === 0 || own.models.includes(model))) {
    const api_key = secrets.open(own.api_key_encrypted, providerContext(user_id, own.base_url));
    return { source: "user", base_url: own.base_url, api_key };
  }
  if (provider.apiKey !== undefined) {
    const any = own === undefined && provider.models.length === 0;
    if (any || provider.models.includes(model)) {
      return { source: "server", base_url: provider.baseUrl, api_key: provider.apiKey };
    }
  }
  if (own === undefined && provider.apiKey === undefined) {
    const message = "There is no provider key for this model: set one with provider.set or OPENAI_API_KEY.";
    throw new AppError("NoProviderKey", message, { hint: `The model "${DEMO_MODEL}" works without a key.` });
  }
  throw new AppError("ModelNotFound", `The model "${model}" does not exist or is not yours to use.`, {
    hint: "llm.models and GET /v1/models list the models you can name.",
  });
}

async function findKeyedProvider(db: Db, user_id: string): Promise<KeyedProvider | undefined> {
  const row = await db
    .selectFrom("providers")
    .select(["base_url", "api_key_encrypted", "models"])
    .where("user_id", "=", user_id)
    .executeTakeFirst();
  return keyed(row);
}

/** A provider without a key is none: its base URL never gets anybody else's. */
function keyed(
  row: { [K in keyof KeyedProvider]: KeyedProvider[K] | null } | undefined,
): KeyedProvider | undefined {
  if (!row?.api_key_encrypted || row.base_url === null) return undefined;
  return { base_url: row.base_url, api_key_encrypted: row.api_key_encrypted, models: row.models ?? [] };
}

/** Every model the user can name, with its price; the scripted one first. */
export async function usableModels(
  db: Db,
  options: { provider: ResolveOptions["provider"]; billing: Config["billing"]; user_id: string },
): Promise<UsableModel[]> {
  const { provider, billing, user_id } = options;
  const own = await findKeyedProvider(db, user_id);
  const sources = new Map<string, ProviderRoute["source"]>([[DEMO_MODEL, "demo"]]);
  for (const model of own?.models ?? []) if (!sources.has(model)) sources.set(model, "user");
  const embedding = new Set<string>();
  for (const { name, enabled, kind } of await listLocalModels(db)) {
    if (!enabled || sources.has(name)) continue;
    sources.set(name, "local");
    if (kind === "embedding") embedding.add(name);
  }
  // An own key without a list serves every name, so that the server's list is never reached.
  const serverReached = provider.apiKey !== undefined && (own === undefined || own.models.length > 0);
  for (const model of serverReached ? provider.models : []) {
    if (!sources.has(model)) sources.set(model, "server");
  }
  const rows = await db
    .selectFrom("models")
    .select(["name", "input_cost_per_million", "cached_cost_per_million", "output_cost_per_million"])
    .where("name", "in", [...sources.keys()])
    .execute();
  const prices = new Map(rows.map((row) => [row.name, row]));
  return [...sources].map(([id, source]) => ({
    id,
    source,
    embedding: embedding.has(id),
    ...priceOf(prices.get(id), billing),
  }));
}
