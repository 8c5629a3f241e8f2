import { diffIndices } from "node-diff3";
import { AppError } from "#schemas";
import type { Db } from "../schema.ts";
import { putBlobs, readBlobs } from "./blobs.ts";
import type { ChangeFile } from "./changes.ts";
import { cost, LineTable, pieces, same, splitLines } from "./lines.ts";
import { normalizePath, showPath } from "./paths.ts";
import { decodeText, isText } from "./text.ts";
import type { FileVersion } from "./types.ts";

/** A longer text is taken or left as a whole, bytes. */
const MAX_DIVIDED_BYTES = 1024 * 1024;
/** Hunks of one file; the last one holds all that comes after. */
export const MAX_HUNKS = 500;
/** Files of which one decision may take a part. */
export const MAX_DIVIDED_FILES = 100;
/** Elementary steps the comparison of one file may take, about 10 ms: past it the rest is one hunk. */
const MAX_COST = 2_000_000;

/** A stretch of lines a change makes something else of. Lines count from 1. */
export interface Hunk {
  /** Its place among the file's hunks, from 0. */
  readonly index: number;
  /** The first line of the old text it replaces; with no lines, the one it is put in front of. */
  readonly old_start: number;
  readonly old_lines: number;
  readonly new_start: number;
  readonly new_lines: number;
}

/** What a decision takes of a file; without indexes all of it. */
export interface Choice {
  readonly path: string;
  readonly indexes?: readonly number[] | undefined;
}

/** The hunks of a text, in order. The same two texts always have the same hunks. */
export function hunksOf(before: string, after: string): Hunk[] {
  return compare(before, after).hunks;
}

/** The old text with some of the hunks in it. */
export function applyHunks(before: string, after: string, indexes: ReadonlySet<number>): string {
  const { hunks, table, from, to } = compare(before, after);
  let text = "";
  let at = 0;
  for (const { index, old_start, old_lines, new_start, new_lines } of hunks) {
    text += table.text(from.slice(at, old_start - 1));
    at = old_start - 1 + old_lines;
    text += indexes.has(index)
      ? table.text(to.slice(new_start - 1, new_start - 1 + new_lines))
      : table.text(from.slice(old_start - 1, at));
  }
  return text + table.text(from.slice(at));
}

/** Whether the hunks of a file can be chosen from: a text on both sides that is not too long. */
export function isDivisible({ before, after }: ChangeFile): boolean {
  if (before === null || after === null || before.blob_hash.equals(after.blob_hash)) return false;
  return before.size <= MAX_DIVIDED_BYTES && after.size <= MAX_DIVIDED_BYTES;
}

interface Compared {
  readonly hunks: Hunk[];
  readonly table: LineTable;
  readonly from: number[];
  readonly to: number[];
}

function compare(before: string, after: string): Compared {
  const table = new LineTable();
  const from = table.intern(splitLines(before));
  const to = table.intern(splitLines(after));
  const changed: [oldStart: number, oldLines: number, newStart: number, newLines: number][] = [];
  const add = (oldAt: number, oldLines: number, newAt: number, newLines: number) => {
    const last = changed.at(-1);
    const adjoins = last !== undefined && last[0] + last[1] === oldAt && last[2] + last[3] === newAt;
    // What adjoins belongs together; and past the limit everything does.
    if (last !== undefined && (adjoins || changed.length === MAX_HUNKS)) {
      last[1] = oldAt + oldLines - last[0];
      last[3] = newAt + newLines - last[2];
    } else changed.push([oldAt, oldLines, newAt, newLines]);
  };
  let [atOld, atNew, budget] = [0, 0, MAX_COST];
  for (const { o, a } of pieces({ o: from, a: to, b: to })) {
    const steps = same(o, a) ? 0 : cost(o, a);
    if (steps > budget) add(atOld, o.length, atNew, a.length);
    else if (steps > 0) {
      budget -= steps;
      for (const { buffer1, buffer2 } of diffIndices(o, a)) {
        add(atOld + buffer1[0], buffer1[1], atNew + buffer2[0], buffer2[1]);
      }
    }
    atOld += o.length;
    atNew += a.length;
  }
  const hunks = changed.map(([oldAt, old_lines, newAt, new_lines], index) => {
    return { index, old_start: oldAt + 1, old_lines, new_start: newAt + 1, new_lines };
  });
  return { hunks, table, from, to };
}

/** A change in two: what is taken, and what is left. A file taken in part is in both, with the taken part between. */
export interface Division {
  readonly taken: ChangeFile[];
  readonly left: ChangeFile[];
}

/**
 * Divide a change. Stores the texts that lie between.
 * @throws AppError InvalidParams for a file or hunk that the change does not have, a file chosen twice, hunks of a file
 * that has none to choose from.
 */
export async function divide(
  db: Db,
  files: readonly ChangeFile[],
  choices: readonly Choice[],
): Promise<Division> {
  const chosen = chosenFiles(files, choices);
  const division: Division = { taken: [], left: [] };
  for (const file of files) {
    const choice = chosen.get(file.path);
    if (choice === undefined) division.left.push(file);
    else if (choice.indexes === undefined) division.taken.push(file);
    else {
      const between = await betweenVersion(db, file, choice.indexes);
      division.taken.push({ ...file, after: between });
      // Where every hunk was taken, the rest makes no difference any more.
      if (!between.blob_hash.equals(file.after?.blob_hash ?? between.blob_hash)) {
        division.left.push({ ...file, before: between });
      }
    }
  }
  return division;
}

function chosenFiles(files: readonly ChangeFile[], choices: readonly Choice[]): Map<string, Choice> {
  const known = new Set(files.map(({ path }) => path));
  const chosen = new Map<string, Choice>();
  for (const choice of choices) {
    const path = normalizePath(choice.path);
    if (!known.has(path)) throw badChoice(`The change does not touch ${showPath(path)}.`);
    if (chosen.has(path)) throw badChoice(`${showPath(path)} is chosen twice.`);
    chosen.set(path, choice);
  }
  const divided = choices.filter(({ indexes }) => indexes !== undefined).length;
  if (divided > MAX_DIVIDED_FILES) {
    throw badChoice(`A part is taken of ${divided} files; ${MAX_DIVIDED_FILES} at once can be.`);
  }
  return chosen;
}

async function betweenVersion(db: Db, file: ChangeFile, indexes: readonly number[]): Promise<FileVersion> {
  const { before, after, path } = file;
  if (before === null || after === null || !isDivisible(file)) throw indivisible(path);
  const contents = await readBlobs(db, [before.blob_hash, after.blob_hash]);
  const [old, next] = [before, after].map(({ blob_hash }) => contents.get(blob_hash.toString("hex")));
  if (old === undefined || next === undefined)
    throw new Error(`a content of ${path} is missing in the store`);
  if (!isText(old) || !isText(next)) throw indivisible(path);
  const texts = [decodeText(old), decodeText(next)] as const;
  const count = hunksOf(...texts).length;
  const odd = indexes.find((index) => index >= count);
  if (odd !== undefined) throw badChoice(`${showPath(path)} has ${count} hunks, and no hunk ${odd}.`);
  const content = Buffer.from(applyHunks(...texts, new Set(indexes)));
  const [blob_hash] = await putBlobs(db, [content]);
  if (blob_hash === undefined) throw new Error("a content was stored without a name");
  return { blob_hash, size: content.length, executable: after.executable };
}

function indivisible(path: string): AppError {
  return badChoice(`${showPath(path)} has no hunks to choose from: it is taken as a whole, without indexes.`);
}

function badChoice(message: string): AppError {
  return new AppError("InvalidParams", message, {
    issues: [{ path: "hunks", message }],
    hint: "change.get tells which hunks each file has.",
  });
}
