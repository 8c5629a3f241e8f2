import { z } from "zod";
import { AppError } from "#schemas";
import type { Attempt } from "./attempts.ts";
import { downloadFailed } from "./failures.ts";
import type { HubHttp } from "./hub-http.ts";
import { checkModelFile, isSplitFile, type ModelSource } from "./parse-url.ts";

/** Pages of a repository's list of files, of a thousand each. */
const MAX_PAGES = 10;
/** Names told when a quantisation is not found or not clear. */
const MAX_NAMES_TOLD = 8;

const oid = z.string().regex(/^[0-9a-f]{64}$/);
const pathsInfo = z.array(
  z.object({
    type: z.string(),
    path: z.string(),
    lfs: z.object({ oid, size: z.int().positive() }).nullish(),
  }),
);
const tree = z.array(z.object({ type: z.string(), path: z.string() }));

/** A file of a repository and what its content must be. */
export interface RemoteFile {
  url: URL;
  /** sha256 of its content. */
  oid: string;
  size: number;
}

/** The path of the file a source means; a quantisation is looked up among the repository's files. */
export async function resolveFile(http: HubHttp, source: ModelSource, attempt: Attempt): Promise<string> {
  if ("file" in source) return checkModelFile(source.file);
  const files = (await listFiles(http, source, attempt)).filter((path) => path.endsWith(".gguf"));
  const found = chooseQuant(files, source.quant);
  if (found.length === 1 && found[0] !== undefined) return checkModelFile(found[0]);
  const told = found.length === 0 ? files : found;
  const hint = `Name the file: ${told.slice(0, MAX_NAMES_TOLD).join(", ") || "the repository has no .gguf file"}`;
  if (found.length === 0) {
    throw new AppError("NotFound", `The repository has no file of quantisation ${source.quant}.`, { hint });
  }
  if (found.every(isSplitFile)) return checkModelFile(told[0] ?? "");
  const message = `The repository has several files of quantisation ${source.quant}.`;
  throw new AppError("InvalidParams", message, { hint });
}

/** Files whose name holds a quantisation as a word of its own; those that end in it before all others. */
export function chooseQuant(files: readonly string[], quant: string): string[] {
  const word = quant.replace(/[.-]/g, "\\$&");
  const within = new RegExp(`(^|[-._/])${word}([-.][^/]*)?\\.gguf$`, "i");
  const atEnd = new RegExp(`(^|[-._/])${word}\\.gguf$`, "i");
  // A projector for pictures comes with its model's quantisation in its name.
  const models = files.filter((path) => !/(^|\/)mmproj/i.test(path));
  const ending = models.filter((path) => atEnd.test(path));
  return ending.length > 0 ? ending : models.filter((path) => within.test(path));
}

async function listFiles(http: HubHttp, source: ModelSource, attempt: Attempt): Promise<string[]> {
  const files: string[] = [];
  let url: URL | undefined = http.url(
    "api",
    "models",
    ...source.repository.split("/"),
    "tree",
    source.revision,
  );
  url.search = "?recursive=true";
  for (let page = 0; url !== undefined && page < MAX_PAGES; page += 1) {
    const { value, next } = await http.json({ method: "GET", url, signal: attempt.signal });
    const entries = tree.safeParse(value);
    if (!entries.success) throw unexpected();
    files.push(...entries.data.filter(({ type }) => type === "file").map(({ path }) => path));
    url = next;
    attempt.alive();
  }
  return files;
}

/**
 * Where a file is and what it must be.
 * @throws AppError NotFound; DownloadFailed when the hub knows no sha256 of it, so that it could not be verified.
 */
export async function describeFile(
  http: HubHttp,
  source: ModelSource,
  path: string,
  attempt: Attempt,
): Promise<RemoteFile> {
  const repository = source.repository.split("/");
  const { value } = await http.json({
    method: "POST",
    url: http.url("api", "models", ...repository, "paths-info", source.revision),
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ paths: [path] }),
    signal: attempt.signal,
  });
  const entries = pathsInfo.safeParse(value);
  if (!entries.success) throw unexpected();
  const entry = entries.data.find((item) => item.path === path && item.type === "file");
  if (entry === undefined) {
    throw new AppError("NotFound", "The repository has no such file.", {
      hint: "Compare the file's name with the hub's page: capital letters count.",
    });
  }
  if (entry.lfs === undefined || entry.lfs === null) {
    throw downloadFailed(
      "The hub knows no sha256 of this file, so it could not be verified.",
      "Model files are kept in Git LFS; choose another file or repository.",
    );
  }
  const url = http.url(...repository, "resolve", source.revision, ...path.split("/"));
  return { url, ...entry.lfs };
}

function unexpected(): AppError {
  return downloadFailed("The model hub answered something unexpected.", "Check HF_ENDPOINT.");
}
