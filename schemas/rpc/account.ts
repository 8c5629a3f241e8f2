import { z } from "zod";
import { idSchema } from "../ids.ts";
import { defineMethod } from "./method.ts";

export const ROLES = ["viewer", "developer", "admin"] as const;
export const roleSchema = z.enum(ROLES);
export type Role = z.infer<typeof roleSchema>;

export const userSchema = z.object({ id: idSchema, username: z.string(), role: roleSchema });
export type UserView = z.infer<typeof userSchema>;

/** What may be known of a stored provider: never its key. */
const providerView = z.object({
  base_url: z.string(),
  models: z.array(z.string()),
  has_api_key: z.boolean(),
  updated_at: z.iso.datetime().optional(),
  /** Whose key a call would use: the user's own, the server's, or none. */
  source: z.enum(["user", "server", "none"]),
});

const exampleProvider: z.input<typeof providerView> = {
  base_url: "https://api.example.com/v1",
  models: ["gpt-5-mini"],
  has_api_key: true,
  source: "user",
};

export const LEDGER_KINDS = ["grant", "hold", "settle", "release"] as const;

const ledgerEntry = z.object({
  id: z.string(),
  kind: z.enum(LEDGER_KINDS),
  /** Change of the balance in micro-credits. */
  balance_delta: z.number().int(),
  /** The balance when this entry had been made. */
  balance_after: z.number().int(),
  /** Change of what is held back for running work in micro-credits. */
  held_delta: z.number().int(),
  task_id: idSchema.optional(),
  call_id: idSchema.optional(),
  note: z.string().optional(),
  created_at: z.iso.datetime(),
});

export const accountMethods = {
  "session.authenticate": defineMethod({
    summary: "Sign a WebSocket connection in with a JWT or an API key (where no header can be set).",
    access: "public",
    params: z.strictObject({ token: z.string().min(1).max(4096) }),
    result: z.object({ user: userSchema }),
    errors: ["Unauthenticated"],
    streaming: true,
    example: {
      params: { token: "<access token>" },
      result: { user: { id: "usr_01", username: "ada", role: "developer" } },
    },
  }),
  "session.me": defineMethod({
    summary: "Who the caller is.",
    access: "viewer",
    params: z.strictObject({}),
    result: z.object({ user: userSchema }),
    errors: [],
    example: { params: {}, result: { user: { id: "usr_01", username: "ada", role: "developer" } } },
  }),
  "provider.set": defineMethod({
    summary: "Store the caller's own model provider; its key is encrypted and never shown again.",
    access: "developer",
    params: z.strictObject({
      base_url: z.url({ protocol: /^https?$/ }).max(2000),
      /** Left out: the stored key is kept, unless the base URL changes, which drops it. */
      api_key: z.string().min(1).max(4096).optional(),
      models: z.array(z.string().min(1).max(200)).max(200),
    }),
    result: providerView,
    errors: [],
    example: {
      params: { base_url: "https://api.example.com/v1", api_key: "sk-...", models: ["gpt-5-mini"] },
      result: exampleProvider,
    },
  }),
  "provider.get": defineMethod({
    summary: "Which provider the caller's runs use; never the key.",
    access: "viewer",
    params: z.strictObject({}),
    result: providerView,
    errors: [],
    example: { params: {}, result: exampleProvider },
  }),
  "provider.delete": defineMethod({
    summary: "Forget the caller's provider and its key.",
    access: "developer",
    params: z.strictObject({}),
    result: z.object({ deleted: z.boolean() }),
    errors: [],
    example: { params: {}, result: { deleted: true } },
  }),
  "llm.models": defineMethod({
    summary: "The models the caller can name in a dispatch, with what they cost.",
    access: "viewer",
    params: z.strictObject({}),
    result: z.object({
      models: z.array(
        z.object({
          id: z.string(),
          /** True for the scripted model that needs no key and is no AI. */
          scripted: z.boolean(),
          source: z.enum(["demo", "local", "user", "server"]),
          input_microcredits_per_million: z.number().int(),
          /** Of the input the provider had cached. */
          cached_microcredits_per_million: z.number().int(),
          output_microcredits_per_million: z.number().int(),
        }),
      ),
    }),
    errors: [],
    example: {
      params: {},
      result: {
        models: [
          {
            id: "demo",
            scripted: true,
            source: "demo",
            input_microcredits_per_million: 1_000_000,
            cached_microcredits_per_million: 1_000_000,
            output_microcredits_per_million: 4_000_000,
          },
        ],
      },
    },
  }),
  "billing.balance": defineMethod({
    summary: "What the caller has, and how much of it is held for running work.",
    access: "viewer",
    params: z.strictObject({}),
    result: z.object({ balance_microcredits: z.number().int(), held_microcredits: z.number().int() }),
    errors: [],
    example: { params: {}, result: { balance_microcredits: 9_991_024, held_microcredits: 0 } },
  }),
  "billing.entries": defineMethod({
    summary: "The caller's ledger, newest first; the sum of `balance_delta` is the balance.",
    access: "viewer",
    params: z.strictObject({
      task_id: idSchema.optional(),
      cursor: z.string().max(200).optional(),
      limit: z.number().int().min(1).max(200).default(50),
    }),
    result: z.object({ entries: z.array(ledgerEntry), next_cursor: z.string().optional() }),
    errors: [],
    example: {
      params: { limit: 1 },
      result: {
        entries: [
          {
            id: "41",
            kind: "settle",
            balance_delta: -8976,
            balance_after: 9_991_024,
            held_delta: -8976,
            task_id: "tsk_01",
            call_id: "llm_01",
            created_at: "2026-11-20T10:00:02.000Z",
          },
        ],
      },
    },
  }),
};
