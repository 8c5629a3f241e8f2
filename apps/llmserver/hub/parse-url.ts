import { AppError } from "#schemas";

/** One model file in a repository of a hub, by its name or by its quantisation ("Q4_K_M"). */
export type ModelSource = { repository: string; revision: string } & ({ file: string } | { quant: string });

const PUBLIC_HUBS = ["https://huggingface.co", "https://hf.co"];
const MAX_TEXT = 1024;
/** What file systems take, in bytes, with room for `.part.json`. */
const MAX_NAME_BYTES = 200;
const REPOSITORY = /^\w[\w.-]{0,95}\/\w[\w.-]{0,95}$/;
const REVISION = /^\w[\w./+-]{0,199}$/;
const QUANT = /^[A-Za-z0-9][\w.-]{0,31}$/;
const SPLIT_FILE = /-\d{5}-of-\d{5}\.gguf$/i;
const HINT =
  "Give https://huggingface.co/<owner>/<repo>/resolve/<revision>/<file.gguf>, hf:<owner>/<repo>/<file.gguf>, " +
  "<owner>/<repo>/<file.gguf> or hf:<owner>/<repo>:<QUANT>.";

/**
 * Where a model file is, from what a person types or pastes: a hub's address (also one below `endpoint`, the hub
 * this server is set to), `hf:owner/repo/file.gguf`, the same without `hf:`, or `hf:owner/repo:QUANT`.
 * Nothing is asked of the network.
 * @throws AppError InvalidParams, in words a person can act on.
 */
export function parseModelUrl(text: string, endpoint?: string): ModelSource {
  const trimmed = text.trim();
  if (trimmed === "" || trimmed.length > MAX_TEXT) throw refuse("That is no address of a model file.");
  if (/^https?:/i.test(trimmed)) return parseAddress(trimmed, endpoint);
  const short = trimmed.replace(/^hf:/, "");
  const quant = /^([^:]+):([^:/]+)$/.exec(short);
  if (quant !== null && short !== trimmed) return withQuant(quant[1] ?? "", quant[2] ?? "");
  const [owner = "", name = "", ...file] = short.split("/");
  return withFile(`${owner}/${name}`, "main", file);
}

/**
 * The same file name that came from somewhere, checked: a relative path that cannot lead elsewhere, ending in .gguf,
 * not one of a split model's. @throws AppError InvalidParams.
 */
export function checkModelFile(path: string): string {
  for (const part of path.split("/")) {
    const wrong = /^[.~]|^ |[ .]$|[\\:*?"<>|\p{C}\u2028\u2029]/u.test(part);
    if (part === "" || wrong || Buffer.byteLength(part) > MAX_NAME_BYTES) {
      throw refuse("That path is not one of a model file.");
    }
  }
  if (!path.endsWith(".gguf")) throw refuse("Only .gguf files are taken.");
  if (SPLIT_FILE.test(path)) {
    throw refuse(
      "That is one part of a split model (-00001-of-0000N.gguf), which is not supported.",
      "Choose a file that holds the whole model, or put its parts together with llama-gguf-split --merge.",
    );
  }
  return path;
}

/** Whether a file is one of several of the same model. */
export function isSplitFile(path: string): boolean {
  return SPLIT_FILE.test(path);
}

/** The parts are taken as they are written: a URL parser would quietly resolve `..` and %2e%2e. */
function parseAddress(text: string, endpoint: string | undefined): ModelSource {
  const [address = "", query = ""] = text.split("?", 2);
  const hubs = endpoint === undefined ? PUBLIC_HUBS : [endpoint, ...PUBLIC_HUBS];
  const hub = hubs.find((known) => address.toLowerCase().startsWith(`${known.toLowerCase()}/`));
  if (hub === undefined) throw refuse("That is not an address of the model hub.");
  // What the hub's own download links end in.
  if (!/^(download=true)?$/.test(query) || address.includes("#")) {
    throw refuse("The address must hold no query and no fragment.");
  }
  const [owner = "", name = "", kind = "", revision = "", ...file] = address
    .slice(hub.length + 1)
    .split("/")
    .map(decode);
  if (kind !== "resolve" && kind !== "blob") throw refuse("That is not the address of a file.");
  return withFile(`${owner}/${name}`, revision, file);
}

function withFile(repository: string, revision: string, parts: string[]): ModelSource {
  checkRepository(repository);
  if (!REVISION.test(revision) || /\.\.|\/\/|\/$/.test(revision)) throw refuse("That is no revision.");
  // A slash that was written as %2F is part of no file's name.
  if (parts.length === 0 || parts.some((part) => part.includes("/"))) {
    throw refuse("The address names no file.");
  }
  return { repository, revision, file: checkModelFile(parts.join("/")) };
}

function withQuant(repository: string, quant: string): ModelSource {
  checkRepository(repository);
  if (!QUANT.test(quant)) throw refuse("That is no quantisation, as in Q4_K_M.");
  return { repository, revision: "main", quant };
}

function checkRepository(repository: string): void {
  if (!REPOSITORY.test(repository) || repository.includes("..")) {
    throw refuse("The repository must be <owner>/<repo>.");
  }
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw refuse("The address is not encoded as addresses are.");
  }
}

function refuse(message: string, hint = HINT): AppError {
  return new AppError("InvalidParams", message, { hint });
}
