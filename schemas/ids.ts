import { z } from "zod";

/** Every kind of id and the prefix by which a person tells it from another. */
export const ID_PREFIXES = {
  user: "usr",
  project: "prj",
  task: "tsk",
  plan: "pln",
  change: "chg",
  call: "llm",
  token: "tok",
  instance: "ins",
  download: "dl",
  process: "run",
  terminal: "trm",
  module: "wsm",
  machine: "vm",
  snapshot: "snp",
  directory: "dir",
} as const;

export type IdKind = keyof typeof ID_PREFIXES;

/** An id is an opaque string to callers; the limit keeps garbage out of indexes. */
export const idSchema = z.string().min(1).max(64);
