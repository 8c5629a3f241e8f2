import type { ProviderRow } from "#database";
import { deleteProvider, getProvider, setProvider } from "#database/accounts/index.ts";
import { DEMO_MODEL, providerContext, usableModels } from "#database/accounts/provider-resolution.ts";
import { balanceOf, listEntries } from "#database/ledger/index.ts";
import { AppError, type MethodResult } from "#schemas";
import { type Context, connectionOf, type HandlersOf } from "../handler.ts";

type AccountMethods = "session." | "provider." | "llm." | "billing.";

export const accountHandlers: HandlersOf<AccountMethods> = {
  "session.authenticate": async (context, { token }) => ({
    user: await connectionOf(context).authenticate(token),
  }),

  "session.me": async ({ caller: { user_id, username, role } }) => ({
    user: { id: user_id, username, role },
  }),

  "provider.set": async (context, { base_url, api_key, models }) => {
    const { caller, database, secrets } = context;
    const address = providerAddress(base_url);
    if (api_key !== undefined) checkKey(api_key);
    const row = await setProvider(database.db, {
      user_id: caller.user_id,
      base_url: address,
      // Sealed to this user and host: for any other it cannot be opened.
      api_key_encrypted:
        api_key === undefined ? undefined : secrets.seal(api_key, providerContext(caller.user_id, address)),
      models: [...new Set(models)],
    });
    return providerView(context, row);
  },

  "provider.get": async (context) =>
    providerView(context, await getProvider(context.database.db, context.caller.user_id)),

  "provider.delete": async ({ caller, database }) => ({
    deleted: await deleteProvider(database.db, caller.user_id),
  }),

  "llm.models": async ({ caller, database, config }) => {
    const { provider, billing } = config;
    const all = await usableModels(database.db, { provider, billing, user_id: caller.user_id });
    // No agent can speak with a model that only makes vectors.
    const usable = all.filter(({ embedding }) => !embedding);
    return {
      models: usable.map(({ id, source, inputPerMillion, cachedPerMillion, outputPerMillion }) => ({
        id,
        scripted: id === DEMO_MODEL,
        source,
        input_microcredits_per_million: inputPerMillion,
        cached_microcredits_per_million: cachedPerMillion,
        output_microcredits_per_million: outputPerMillion,
      })),
    };
  },

  "billing.balance": ({ caller, database }) => balanceOf(database.db, caller.user_id),

  "billing.entries": async ({ caller, database }, { task_id, cursor, limit }) => {
    const page = await listEntries(database.db, { user_id: caller.user_id, task_id, cursor, limit });
    const entries = page.entries.map((entry) => ({
      id: String(entry.id),
      kind: entry.kind,
      balance_delta: entry.balance_delta,
      balance_after: entry.balance_after,
      held_delta: entry.held_delta,
      ...(entry.task_id === null ? {} : { task_id: entry.task_id }),
      ...(entry.call_id === null ? {} : { call_id: entry.call_id }),
      ...(entry.note === null ? {} : { note: entry.note }),
      created_at: entry.created_at.toISOString(),
    }));
    return page.next_cursor === undefined ? { entries } : { entries, next_cursor: page.next_cursor };
  },
};

/** What may be known of a provider: the user's own row, else the server's; never a key. */
function providerView({ config }: Context, row: ProviderRow | undefined): MethodResult<"provider.get"> {
  const { apiKey, baseUrl, models } = config.provider;
  const server = apiKey === undefined ? "none" : "server";
  if (row === undefined) return { base_url: baseUrl, models, has_api_key: false, source: server };
  const keyed = row.api_key_encrypted !== null;
  return {
    base_url: row.base_url,
    models: row.models,
    has_api_key: keyed,
    updated_at: row.updated_at.toISOString(),
    source: keyed ? "user" : server,
  };
}

/** The address as it is stored: nothing in it that could hold a secret, which would be shown again. */
function providerAddress(base_url: string): string {
  const url = new URL(base_url);
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw wrong(
      "base_url",
      "An address without user, password, query and fragment, e.g. https://api.example.com/v1.",
    );
  }
  return url.href.replace(/\/+$/, "");
}

/** It travels in a header. */
function checkKey(api_key: string): void {
  if (!/^[\x21-\x7e]+$/.test(api_key)) throw wrong("api_key", "Printable ASCII without blanks only.");
}

function wrong(name: string, message: string): AppError {
  return new AppError("InvalidParams", `params.${name}: ${message}`, {
    issues: [{ path: `params.${name}`, message }],
  });
}
