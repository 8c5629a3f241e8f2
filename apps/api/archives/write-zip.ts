import { Readable } from "node:stream";
import yazl from "yazl";
import type { Db } from "#database";
import { readContents, type TreeFile } from "#database/projects/index.ts";

const FILE = 0o100644;
const EXECUTABLE = 0o100755;

/**
 * A tree as a zip file, made while it is read: contents come from the database page by page, and no faster
 * than the reader takes them. The stream fails when the database does.
 */
export function writeZip(db: Db, tree: readonly TreeFile[], mtime: Date): Readable {
  const zip = new yazl.ZipFile();
  const contents = readContents(db, tree);
  // The library's types know less of its stream than is true.
  const output = zip.outputStream as Readable;
  const fail = (error: unknown) => {
    output.destroy(error instanceof Error ? error : new Error(String(error)));
  };
  zip.on("error", fail);
  for (const { path, size, executable } of tree) {
    const options = { size, mtime, mode: executable ? EXECUTABLE : FILE };
    // Asked for one after the other, in just this order.
    zip.addReadStreamLazy(path, options, (give) => {
      contents.next().then(({ value }) => {
        if (value !== undefined) give(null, Readable.from([value.content]));
      }, fail);
    });
  }
  zip.end();
  return output;
}
