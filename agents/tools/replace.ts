import { count } from "./text.ts";
import { ToolFailure } from "./tool.ts";

/** Beyond this no search for a similar line is made: it looks at every one. */
const MAX_COMPARED_CHARS = 1024 * 1024;
const MAX_QUOTED_CHARS = 200;
/** More places than anybody means, and more text than any file holds: it is made in the server's own memory. */
const MAX_PLACES = 50_000;
const MAX_RESULT_CHARS = 64 * 1024 * 1024;
const MAX_NAMED_LINES = 10;

export interface Replacement {
  readonly text: string;
  /** Lines, counted from 1, where the replaced text began. */
  readonly lines: readonly number[];
}

/**
 * Put `next` where `old` stands: exactly once, or everywhere with `all`. Letter for letter, but for line ends: a file
 * with CRLF takes a text with LF. Pure. @throws ToolFailure when there is none, or more than one.
 */
export function replaceText(text: string, old: string, next: string, all = false): Replacement {
  if (old === "") throw new ToolFailure("oldString is empty. Give the text to replace, or use write.");
  if (old === next)
    throw new ToolFailure("oldString and newString are the same: there is nothing to change.");
  const [from, to] = asWritten(text, old, next);
  const places = placesOf(text, from);
  if (places.length === 0) throw new ToolFailure(notThere(text, old));
  const lines = linesAt(text, places);
  if (places.length > 1 && !all) throw new ToolFailure(tooMany(lines));
  if (places.length > MAX_PLACES || text.length + places.length * to.length > MAX_RESULT_CHARS) {
    throw new ToolFailure("That is too much to replace at once. Use bash, for instance with sed.");
  }
  const parts: string[] = [];
  let end = 0;
  for (const place of places) {
    parts.push(text.slice(end, place), to);
    end = place + from.length;
  }
  parts.push(text.slice(end));
  return { text: parts.join(""), lines };
}

/** Both texts with the file's line ends, where it has CRLF throughout and they have none. */
function asWritten(text: string, old: string, next: string): [old: string, next: string] {
  const crlf = text.includes("\r\n") && !/(^|[^\r])\n/.test(text);
  if (!crlf || old.includes("\r\n")) return [old, next];
  const converted = (value: string) => value.replaceAll(/(?<!\r)\n/g, "\r\n");
  return [converted(old), converted(next)];
}

/** Where it stands, from the left, none overlapping another; one more than the most when there are more. */
function placesOf(text: string, part: string): number[] {
  const places: number[] = [];
  for (let at = text.indexOf(part); at !== -1; at = text.indexOf(part, at + part.length)) {
    if (places.push(at) > MAX_PLACES) break;
  }
  return places;
}

function linesAt(text: string, places: readonly number[]): number[] {
  let line = 1;
  let at = 0;
  return places.map((place) => {
    for (; at < place; at += 1) if (text.charCodeAt(at) === 0x0a) line += 1;
    return line;
  });
}

function tooMany(lines: readonly number[]): string {
  const named = lines.slice(0, MAX_NAMED_LINES).join(", ") + (lines.length > MAX_NAMED_LINES ? ", …" : "");
  const times = lines.length > MAX_PLACES ? `more than ${MAX_PLACES} times` : count(lines.length, "time");
  return (
    `oldString is there ${times} (lines ${named}). ` +
    "Give more of the lines around it so that it is unique, or set replaceAll."
  );
}

function notThere(text: string, old: string): string {
  const nearest = nearestLine(text, old);
  const advice = "It must match letter for letter, spaces included; read the file again.";
  if (nearest === undefined) return `oldString is not in the file. ${advice}`;
  const quoted = JSON.stringify(nearest.text.slice(0, MAX_QUOTED_CHARS));
  return `oldString is not in the file. The nearest to its first line is line ${nearest.line}: ${quoted}. ${advice}`;
}

/** The line most like the first one looked for: the same but for spaces, or sharing most of its words. */
function nearestLine(text: string, old: string): { line: number; text: string } | undefined {
  if (text.length > MAX_COMPARED_CHARS) return undefined;
  const wanted = old.split("\n").find((line) => line.trim() !== "");
  if (wanted === undefined) return undefined;
  const words = wordsOf(wanted);
  let best: { line: number; text: string } | undefined;
  let bestScore = 0;
  for (const [index, line] of text.split("\n").entries()) {
    const score = likeness(words, wordsOf(line));
    if (score <= bestScore) continue;
    bestScore = score;
    best = { line: index + 1, text: line.replace(/\r$/, "") };
  }
  return bestScore >= 0.5 ? best : undefined;
}

const wordsOf = (line: string) =>
  new Set(line.slice(0, 1000).match(/[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]/gu) ?? []);

/** 0..1: how many words they share, of all that they have. */
function likeness(one: ReadonlySet<string>, other: ReadonlySet<string>): number {
  let shared = 0;
  for (const word of one) if (other.has(word)) shared += 1;
  const all = one.size + other.size - shared;
  return all === 0 ? 0 : shared / all;
}
