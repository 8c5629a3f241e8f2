import { z } from "zod";
import { ERRORS, type ErrorCode } from "../errors.ts";
import { notifications } from "../notifications.ts";
import { methods } from "./index.ts";
import type { MethodSpec } from "./method.ts";

const OPENRPC_VERSION = "1.3.2";
/** The contract's own version: raised when a caller could notice. */
const CONTRACT_VERSION = "1.0.0";

/** What any call can come back with, whatever the method. */
export const COMMON_ERRORS: readonly ErrorCode[] = [
  "InvalidRequest",
  "MethodNotFound",
  "InvalidParams",
  "InternalError",
  "RateLimited",
  "PayloadTooLarge",
  "Timeout",
  "Unavailable",
];
/** And what only those that need a caller can. */
export const SIGNED_IN_ERRORS: readonly ErrorCode[] = ["Unauthenticated", "Forbidden"];

type Json = Record<string, unknown>;

interface ContentDescriptor {
  name: string;
  required?: boolean;
  description?: string;
  schema: Json;
}

interface OpenRpcMethod {
  name: string;
  summary: string;
  tags: { name: string }[];
  paramStructure: "by-name";
  params: ContentDescriptor[];
  result: ContentDescriptor;
  errors: { $ref: string }[];
  examples: {
    name: string;
    params: { name: string; value: unknown }[];
    result: { name: string; value: unknown };
  }[];
  /** The least role that may call it, or `public`. */
  "x-access": string;
  /** WebSocket only. */
  "x-streaming"?: true;
}

export interface OpenRpcDocument {
  openrpc: string;
  info: { title: string; version: string; description: string };
  servers: { name: string; url: string; summary: string }[];
  methods: OpenRpcMethod[];
  components: { errors: Record<string, { code: number; message: string; data: Json }> };
  /** What the server sends unasked over WebSocket; OpenRPC itself has no place for it. */
  "x-notifications": { name: string; summary: string; params: Json }[];
}

/** The OpenRPC document of the whole surface, made from the very schemas that check every call. */
export function buildOpenRpc(): OpenRpcDocument {
  return {
    openrpc: OPENRPC_VERSION,
    info: {
      title: "CyberDevStudio",
      version: CONTRACT_VERSION,
      description:
        "JSON-RPC 2.0 by name over `POST /rpc` and `WebSocket /ws`. Sign in with `Authorization: Bearer` and a JWT or an API key. Every error has a name in `data.code`.",
    },
    servers: [
      { name: "http", url: "/rpc", summary: "One request or batch per POST." },
      { name: "websocket", url: "/ws", summary: "The same methods, and notifications." },
    ],
    methods: [...Object.entries(methods).map(([name, spec]) => describeMethod(name, spec)), discovery()],
    components: {
      errors: Object.fromEntries(
        Object.entries(ERRORS).map(([name, { rpc, http }]) => [
          name,
          { code: rpc, message: name, data: { code: name, http_status: http } },
        ]),
      ),
    },
    "x-notifications": Object.entries(notifications).map(([name, { summary, params }]) => ({
      name,
      summary,
      params: jsonSchema(params, "output"),
    })),
  };
}

function describeMethod(name: string, spec: MethodSpec): OpenRpcMethod {
  const codes = [...COMMON_ERRORS, ...(spec.access === "public" ? [] : SIGNED_IN_ERRORS), ...spec.errors];
  const sent = spec.example.params as Json;
  return {
    name,
    summary: spec.summary,
    tags: [{ name: name.split(".")[0] ?? name }],
    paramStructure: "by-name",
    params: paramsOf(spec.params),
    result: { name: "result", schema: jsonSchema(spec.result, "output") },
    errors: [...new Set(codes)].map(errorReference),
    examples: [
      {
        name: "example",
        params: Object.entries(sent).map(([key, value]) => ({ name: key, value })),
        result: { name: "result", value: spec.example.result },
      },
    ],
    "x-access": spec.access,
    ...(spec.streaming === true ? { "x-streaming": true } : {}),
  };
}

/** The discovery method describes itself, as OpenRPC's service discovery asks. */
function discovery(): OpenRpcMethod {
  return {
    name: "rpc.discover",
    summary: "This document.",
    tags: [{ name: "rpc" }],
    paramStructure: "by-name",
    params: [],
    result: { name: "document", schema: { type: "object", required: ["openrpc", "info", "methods"] } },
    errors: COMMON_ERRORS.map(errorReference),
    examples: [],
    "x-access": "public",
  };
}

function paramsOf(schema: z.ZodType): ContentDescriptor[] {
  const { properties = {}, required = [] } = jsonSchema(schema, "input") as {
    properties?: Record<string, Json>;
    required?: string[];
  };
  const described = Object.entries(properties).map(([name, property]) => ({
    name,
    required: required.includes(name),
    schema: property,
  }));
  // OpenRPC wants required params first.
  return [...described.filter((param) => param.required), ...described.filter((param) => !param.required)];
}

function jsonSchema(schema: z.ZodType, io: "input" | "output"): Json {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { target: "draft-7", io }) as Json;
  return rest;
}

function errorReference(code: ErrorCode): { $ref: string } {
  return { $ref: `#/components/errors/${code}` };
}
