import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { brotliCompress, constants } from "node:zlib";

const HERE = fileURLToPath(new URL(".", import.meta.url));
export const DIST = join(HERE, "dist");
const ROOT = join(HERE, "..", "..");
const SOURCES = [
  "apps/studio-ui/src",
  "apps/studio-ui/public",
  "apps/studio-ui/index.html",
  "apps/studio-ui/vite.config.ts",
  "themes",
  "schemas",
  "package-lock.json",
];
const COMPRESSED = /\.(js|css|html|svg|json)$/;

/**
 * Build the page unless what lies in dist/ was made from these very sources.
 * @returns whether it had to be built (some seconds)
 */
export async function ensureUiBuilt(): Promise<boolean> {
  const stamp = join(DIST, ".stamp");
  const want = await hashSources();
  if ((await readFile(stamp, "utf8").catch(() => "")) === want) return false;
  const { build } = await import("vite");
  await build({ configFile: join(HERE, "vite.config.ts") });
  await compress(DIST);
  await mkdir(DIST, { recursive: true });
  await writeFile(stamp, want);
  return true;
}

async function hashSources(): Promise<string> {
  const hash = createHash("sha256");
  for (const source of SOURCES) {
    for (const file of await filesBelow(join(ROOT, source))) {
      if (file.endsWith(".test.ts") || file.endsWith(".test.tsx")) continue;
      hash
        .update(file.slice(ROOT.length))
        .update("\0")
        .update(await readFile(file));
    }
  }
  return hash.digest("hex");
}

async function filesBelow(path: string): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true, recursive: true }).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === "ENOTDIR") return null;
    throw error;
  });
  if (entries === null) return [path];
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** Brotli beside every text file, so that serving costs no CPU. */
async function compress(dir: string): Promise<void> {
  const brotli = promisify(brotliCompress);
  for (const file of await filesBelow(dir)) {
    if (!COMPRESSED.test(file)) continue;
    const packed = await brotli(await readFile(file), {
      params: { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY },
    });
    await writeFile(`${file}.br`, packed);
  }
}
