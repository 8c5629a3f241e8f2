import { readdir, readFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const DIRECTORY = fileURLToPath(new URL("../sample-project/", import.meta.url));

/** The files a project made from the template "sample" starts with. */
export async function readSampleProject(): Promise<{ path: string; content: Buffer }[]> {
  const entries = await readdir(DIRECTORY, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return Promise.all(
    files.sort().map(async (file) => ({
      path: relative(DIRECTORY, file).replaceAll("\\", "/"),
      content: await readFile(file),
    })),
  );
}
