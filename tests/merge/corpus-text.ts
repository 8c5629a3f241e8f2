import type { Pair } from "./trees.ts";

/** `name 0` … `name n-1`, each on a line. */
export function numbered(count: number, name = "line"): string[] {
  return Array.from({ length: count }, (_, index) => `${name} ${index}`);
}
export const text = (lines: readonly string[], end = "\n") => lines.map((line) => line + end).join("");

export const ENDS_ONLY =
  "Where one side only changed how lines end, the other side's edit is no conflict here.";

const TEN = numbered(10);
const one = (base: string | Buffer, ours: string | Buffer, theirs: string | Buffer) => ({
  base: { "a.txt": base },
  ours: { "a.txt": ours },
  theirs: { "a.txt": theirs },
});
const ten = (ours: readonly string[], theirs: readonly string[]) => one(text(TEN), text(ours), text(theirs));
const crlf = (lines: readonly string[]) => text(lines, "\r\n");
const utf16 = (content: string) => Buffer.from(`\ufeff${content}`, "utf16le");
const bom = (lines: readonly string[]) => `\ufeff${text(lines)}`;
const manifest = (...dependencies: string[]) =>
  `{\n  "name": "rathaus",\n  "dependencies": {\n${dependencies.map((entry) => `    ${entry}`).join(",\n")}\n  },\n  "private": true\n}\n`;
const HUGE = numbered(60_000);

/** Both sides changed the same file. */
export const textPairs: readonly Pair[] = [
  { name: "far apart", ...ten(TEN.with(0, "ours"), TEN.with(9, "theirs")) },
  { name: "one line between", ...ten(TEN.with(3, "ours"), TEN.with(5, "theirs")) },
  { name: "adjacent lines", ...ten(TEN.with(3, "ours"), TEN.with(4, "theirs")) },
  { name: "the same line, the same edit", ...ten(TEN.with(3, "both"), TEN.with(3, "both")) },
  { name: "the same line, different edits", ...ten(TEN.with(3, "ours"), TEN.with(3, "theirs")) },
  {
    name: "the same edit and another one each",
    ...ten(TEN.with(3, "both").with(0, "ours"), TEN.with(3, "both").with(9, "theirs")),
  },
  { name: "both insert at one place", ...ten(TEN.toSpliced(5, 0, "ours"), TEN.toSpliced(5, 0, "theirs")) },
  {
    name: "both insert the same at one place",
    ...ten(TEN.toSpliced(5, 0, "both"), TEN.toSpliced(5, 0, "both")),
  },
  {
    name: "insertions that begin alike",
    ...ten(TEN.toSpliced(5, 0, "both", "ours"), TEN.toSpliced(5, 0, "both", "theirs")),
  },
  { name: "both append", ...ten([...TEN, "ours"], [...TEN, "theirs"]) },
  { name: "both prepend", ...ten(["ours", ...TEN], ["theirs", ...TEN]) },
  { name: "one deletes lines, one edits others", ...ten(TEN.toSpliced(0, 3), TEN.with(9, "theirs")) },
  { name: "one deletes lines, one edits one of them", ...ten(TEN.toSpliced(2, 3), TEN.with(3, "theirs")) },
  { name: "overlapping deletions", ...ten(TEN.toSpliced(2, 3), TEN.toSpliced(4, 3)) },
  { name: "the same deletion", ...ten(TEN.toSpliced(2, 3), TEN.toSpliced(2, 3)) },
  { name: "an insertion into what is deleted", ...ten(TEN.toSpliced(2, 5), TEN.toSpliced(4, 0, "theirs")) },
  {
    name: "a block moved, a line of it edited",
    ...ten([...TEN.slice(5), ...TEN.slice(0, 5)], TEN.with(2, "theirs")),
  },
  {
    name: "a block moved, another line edited",
    ...ten(
      [...TEN.slice(0, 1), ...TEN.slice(4, 7), ...TEN.slice(1, 4), ...TEN.slice(7)],
      TEN.with(9, "theirs"),
    ),
  },
  {
    name: "both move the same block to different places",
    ...ten([...TEN.slice(2), ...TEN.slice(0, 2)], [...TEN.slice(2, 6), ...TEN.slice(0, 2), ...TEN.slice(6)]),
  },
  {
    name: "equal lines all over",
    ...one("}\n\n}\n\n}\n\n}\n", "a\n}\n\n}\n\n}\n\n}\n", "}\n\n}\n\n}\n\n}\nb\n"),
  },
  {
    name: "functions alike, one added at each end",
    ...one(
      "f() {\n  return 1;\n}\n\ng() {\n  return 2;\n}\n",
      "e() {\n  return 0;\n}\n\nf() {\n  return 1;\n}\n\ng() {\n  return 2;\n}\n",
      "f() {\n  return 1;\n}\n\ng() {\n  return 2;\n}\n\nh() {\n  return 3;\n}\n",
    ),
  },
  {
    name: "everything rewritten by one, a line by the other",
    ...ten(numbered(12, "new"), TEN.with(4, "theirs")),
  },
  { name: "emptied by one, edited by the other", ...ten([], TEN.with(4, "theirs")) },
  { name: "emptied by both", ...ten([], []) },
  { name: "filled from nothing by both", ...one("", "ours\n", "theirs\n") },
  { name: "filled from nothing by both alike", ...one("", "both\n", "both\n") },
  { name: "CRLF, far apart", ...one(crlf(TEN), crlf(TEN.with(0, "ours")), crlf(TEN.with(9, "theirs"))) },
  { name: "CRLF, the same line", ...one(crlf(TEN), crlf(TEN.with(3, "ours")), crlf(TEN.with(3, "theirs"))) },
  {
    name: "CRLF to LF by one, edited by the other",
    ...one(crlf(TEN), text(TEN), crlf(TEN.with(3, "theirs"))),
    differs: ENDS_ONLY,
  },
  {
    name: "LF to CRLF by one, edited by the other",
    ...one(text(TEN), crlf(TEN), text(TEN.with(3, "theirs"))),
    differs: ENDS_ONLY,
  },
  {
    name: "LF to CRLF by both, edited apart",
    ...one(text(TEN), crlf(TEN.with(0, "ours")), crlf(TEN.with(9, "theirs"))),
    differs: ENDS_ONLY,
  },
  {
    name: "mixed line ends, far apart",
    ...one("a\r\nb\nc\r\nd\ne\r\n", "A\r\nb\nc\r\nd\ne\r\n", "a\r\nb\nc\r\nd\nE\r\n"),
  },
  {
    name: "mixed line ends made LF by one, edited by the other",
    ...one("a\r\nb\nc\r\nd\n", "a\nb\nc\nd\n", "a\r\nb\nc\r\nD\n"),
  },
  { name: "old Mac line ends", ...one("a\rb\rc", "A\rb\rc", "a\rb\rC") },
  {
    name: "no newline at the end, edited at the start and appended to",
    ...one("a\nb\nc", "A\nb\nc", "a\nb\nc\nd\n"),
  },
  {
    name: "newline at the end added by one, line edited by the other",
    ...one("a\nb\nc\nd", "a\nb\nc\nd\n", "A\nb\nc\nd"),
  },
  { name: "newline at the end added by both", ...one("a\nb\nc", "a\nb\nc\n", "a\nb\nc\n") },
  { name: "the last line without a newline edited by both", ...one("a\nb\nc", "a\nb\nours", "a\nb\ntheirs") },
  {
    name: "newline at the end removed by one, appended by the other",
    ...ten([], []),
    base: { "a.txt": "a\nb\n" },
    ours: { "a.txt": "a\nb" },
    theirs: { "a.txt": "a\nb\nc\n" },
  },
  {
    name: "a byte order mark, edited apart",
    ...one(bom(TEN), bom(TEN.with(1, "ours")), bom(TEN.with(8, "theirs"))),
  },
  {
    name: "a byte order mark removed by one, edited by the other",
    ...one(bom(TEN), text(TEN), bom(TEN.with(8, "theirs"))),
  },
  {
    name: "a byte order mark added by one, first line edited by the other",
    ...one(text(TEN), bom(TEN), text(TEN.with(0, "theirs"))),
  },
  {
    name: "UTF-16, edited apart",
    ...one(utf16(text(TEN)), utf16(text(TEN.with(0, "ours"))), utf16(text(TEN.with(9, "theirs")))),
  },
  {
    name: "UTF-16, edited by one",
    ...one(utf16(text(TEN)), utf16(text(TEN)), utf16(text(TEN.with(9, "theirs")))),
  },
  {
    name: "UTF-8 to UTF-16 by one, edited by the other",
    ...one(text(TEN), utf16(text(TEN)), text(TEN.with(9, "theirs"))),
  },
  {
    name: "umlauts and emoji, edited apart",
    ...one("Größe\nb\nc\nd\nStraße 🏛\n", "Größen\nb\nc\nd\nStraße 🏛\n", "Größe\nb\nc\nd\nGasse 🏛\n"),
  },
  {
    name: "Latin-1, edited apart",
    ...one(
      Buffer.from("Gr\xf6\xdfe\nb\nc\nd\n", "latin1"),
      Buffer.from("Gr\xf6\xdfen\nb\nc\nd\n", "latin1"),
      Buffer.from("Gr\xf6\xdfe\nb\nc\nD\xfc\n", "latin1"),
    ),
    differs:
      "What is not UTF-8 is no text here: a merge could not be shown without changing it, so somebody chooses.",
  },
  {
    name: "binary, edited by both",
    ...one(Buffer.from([0, 1, 2]), Buffer.from([0, 1, 3]), Buffer.from([0, 2, 2])),
  },
  {
    name: "binary, edited by both alike",
    ...one(Buffer.from([0, 1, 2]), Buffer.from([0, 9]), Buffer.from([0, 9])),
  },
  { name: "text made binary by one, edited by the other", ...one("a\nb\n", Buffer.from([0, 1]), "a\nB\n") },
  {
    name: "very long lines, edited apart",
    ...one(
      `${"x".repeat(100_000)}\nb\nc\n${"y".repeat(100_000)}\n`,
      `${"x".repeat(99_999)}\nb\nc\n${"y".repeat(100_000)}\n`,
      `${"x".repeat(100_000)}\nb\nc\n${"y".repeat(99_999)}\n`,
    ),
  },
  {
    name: "one very long line, edited by both",
    ...one("x".repeat(100_000), `o${"x".repeat(99_999)}`, `${"x".repeat(99_999)}t`),
  },
  {
    name: "a huge file, far apart",
    ...one(text(HUGE), text(HUGE.with(7, "ours")), text(HUGE.with(59_990, "theirs"))),
  },
  {
    name: "a huge file, hundreds of edits by each",
    ...one(
      text(HUGE),
      text(HUGE.map((line, at) => (at % 200 === 0 ? `ours ${at}` : line))),
      text(HUGE.map((line, at) => (at % 200 === 100 ? `theirs ${at}` : line))),
    ),
  },
  {
    name: "a manifest, both add the last dependency",
    ...one(
      manifest('"a": "1"', '"m": "1"'),
      manifest('"a": "1"', '"m": "1"', '"x": "1"'),
      manifest('"a": "1"', '"m": "1"', '"y": "1"'),
    ),
  },
  {
    name: "a manifest, dependencies added apart",
    ...one(
      manifest('"a": "1"', '"m": "1"', '"n": "1"'),
      manifest('"a": "1"', '"b": "1"', '"m": "1"', '"n": "1"'),
      manifest('"a": "1"', '"m": "1"', '"n": "1"', '"x": "1"'),
    ),
  },
  {
    name: "a manifest, both add the same dependency",
    ...one(manifest('"a": "1"'), manifest('"a": "1"', '"x": "1"'), manifest('"a": "1"', '"x": "1"')),
  },
  {
    name: "each good, together bad: a function renamed and called anew",
    base: {
      "lib.js": "export function greet() {\n  return 1;\n}\n",
      "use.js": "import { greet } from './lib.js';\n\ngreet();\n",
    },
    ours: {
      "lib.js": "export function welcome() {\n  return 1;\n}\n",
      "use.js": "import { welcome } from './lib.js';\n\nwelcome();\n",
    },
    theirs: { "more.js": "import { greet } from './lib.js';\n\ngreet();\ngreet();\n" },
  },
  {
    name: "lines that look like conflict markers",
    ...one("a\n=======\nb\nc\nd\n", "A\n=======\nb\nc\nd\n", "a\n=======\nb\nc\nD\n"),
  },
];
