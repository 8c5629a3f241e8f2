import { ENDS_ONLY, numbered, text } from "./corpus-text.ts";
import { executable, type Pair } from "./trees.ts";

const A = numbered(12, "alpha");
const B = numbered(12, "beta");
const C = numbered(12, "gamma");
const [a, b, c] = [text(A), text(B), text(C)];
const script = "#!/bin/sh\necho 1\necho 2\necho 3\necho 4\n";

/** What the other side did while a file or a directory was moved: told once, tried both ways round. */
const moves: readonly Pair[] = [
  {
    name: "moved | edited",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": a },
    theirs: { "a.txt": text(A.with(3, "edit")) },
  },
  {
    name: "moved into a directory | edited",
    base: { "a.txt": a },
    ours: { "a.txt": null, "d/e/a.txt": a },
    theirs: { "a.txt": text(A.with(3, "edit")) },
  },
  {
    name: "moved and edited | edited elsewhere",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": text(A.with(0, "moved")) },
    theirs: { "a.txt": text(A.with(11, "edit")) },
  },
  {
    name: "moved and edited | edited at the same line",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": text(A.with(3, "moved")) },
    theirs: { "a.txt": text(A.with(3, "edit")) },
  },
  {
    name: "moved and line ends changed | edited",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": text(A, "\r\n") },
    theirs: { "a.txt": text(A.with(3, "edit")) },
    differs: ENDS_ONLY,
  },
  {
    name: "moved and rewritten | edited",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": c },
    theirs: { "a.txt": text(A.with(3, "edit")) },
  },
  {
    name: "moved | moved to the same place",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": a },
    theirs: { "a.txt": null, "b.txt": a },
  },
  {
    name: "moved and edited | moved to the same place and edited elsewhere",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": text(A.with(0, "one")) },
    theirs: { "a.txt": null, "b.txt": text(A.with(11, "two")) },
  },
  {
    name: "moved | moved to another place",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": a },
    theirs: { "a.txt": null, "c.txt": a },
  },
  {
    name: "moved and edited | moved to another place and edited",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": text(A.with(0, "one")) },
    theirs: { "a.txt": null, "c.txt": text(A.with(11, "two")) },
  },
  {
    name: "moved | deleted",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": a },
    theirs: { "a.txt": null },
  },
  {
    name: "moved and edited | deleted",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": text(A.with(3, "moved")) },
    theirs: { "a.txt": null },
  },
  {
    name: "moved | another file added at the new place",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": a },
    theirs: { "b.txt": c },
  },
  {
    name: "moved | edited, and another file added at the new place",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": a },
    theirs: { "a.txt": text(A.with(3, "edit")), "b.txt": c },
  },
  {
    name: "moved | made executable",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": a },
    theirs: { "a.txt": executable(a) },
  },
  {
    name: "moved | made executable and edited",
    base: { "a.txt": a },
    ours: { "a.txt": null, "b.txt": text(A.with(0, "moved")) },
    theirs: { "a.txt": executable(text(A.with(11, "edit"))) },
  },
  {
    name: "two files moved to one name",
    base: { "a.txt": a, "b.txt": b },
    ours: { "a.txt": null, "z.txt": a },
    theirs: { "b.txt": null, "z.txt": b },
  },
  {
    name: "two files moved to one name, both edited by the others",
    base: { "a.txt": a, "b.txt": b },
    ours: { "a.txt": null, "z.txt": a, "b.txt": text(B.with(3, "ours")) },
    theirs: { "b.txt": null, "z.txt": b, "a.txt": text(A.with(3, "theirs")) },
  },
  {
    name: "a directory moved into itself | its deeper half moved up to the same place",
    base: { "d/x.txt": a, "d/deep/x.txt": b },
    ours: { "d/x.txt": null, "d/deep/x.txt": null, "d/m/x.txt": a, "d/m/deep/x.txt": b },
    theirs: { "d/deep/x.txt": null, "d/m/x.txt": b },
  },
  {
    name: "names swapped | one of them edited",
    base: { "a.txt": a, "b.txt": b },
    ours: { "a.txt": b, "b.txt": a },
    theirs: { "a.txt": text(A.with(3, "edit")) },
  },
  {
    name: "a binary moved | edited",
    base: { "a.bin": Buffer.from([0, ...Array(400).keys()]) },
    ours: { "a.bin": null, "b.bin": Buffer.from([0, ...Array(400).keys()]) },
    theirs: { "a.bin": Buffer.from([0, ...Array(400).keys(), 7]) },
  },
  {
    name: "one of two equal files moved | it is edited",
    base: { "a.txt": a, "copy.txt": a },
    ours: { "a.txt": null, "d/a.txt": a },
    theirs: { "a.txt": text(A.with(3, "edit")) },
  },
  {
    name: "an empty file moved | filled",
    base: { "a.txt": "" },
    ours: { "a.txt": null, "b.txt": "" },
    theirs: { "a.txt": "x\n" },
  },
  {
    name: "a copy made | the original edited",
    base: { "a.txt": a },
    ours: { "b.txt": a },
    theirs: { "a.txt": text(A.with(3, "edit")) },
  },
  {
    name: "split in two | edited",
    base: { "a.txt": a },
    ours: { "a.txt": null, "a1.txt": text(A.slice(0, 8)), "a2.txt": text(A.slice(8)) },
    theirs: { "a.txt": text(A.with(2, "edit")) },
  },
  {
    name: "a directory moved | a file in it edited",
    base: { "d/a.txt": a, "d/b.txt": b },
    ours: { "d/a.txt": null, "d/b.txt": null, "e/a.txt": a, "e/b.txt": b },
    theirs: { "d/a.txt": text(A.with(3, "edit")) },
  },
  {
    name: "a directory moved | a file added to it",
    base: { "d/a.txt": a, "d/b.txt": b },
    ours: { "d/a.txt": null, "d/b.txt": null, "e/a.txt": a, "e/b.txt": b },
    theirs: { "d/new.txt": c },
  },
  {
    name: "a directory moved | a file added and one edited",
    base: { "d/a.txt": a, "d/b.txt": b },
    ours: { "d/a.txt": null, "d/b.txt": null, "e/a.txt": text(A.with(0, "moved")), "e/b.txt": b },
    theirs: { "d/new.txt": c, "d/a.txt": text(A.with(9, "edit")) },
  },
  {
    name: "a deep directory moved | a file added far below",
    base: { "d/x/a.txt": a, "d/x/b.txt": b },
    ours: { "d/x/a.txt": null, "d/x/b.txt": null, "e/x/a.txt": a, "e/x/b.txt": b },
    theirs: { "d/x/y/new.txt": c },
    differs:
      "git passes over a new directory in one that was moved, and takes a new file along; here both go along.",
  },
  {
    name: "a directory moved in part | a file added to it",
    base: { "d/a.txt": a, "d/b.txt": b },
    ours: { "d/a.txt": null, "e/a.txt": a },
    theirs: { "d/new.txt": c },
  },
  {
    name: "a directory scattered evenly | a file added to it",
    base: { "d/a.txt": a, "d/b.txt": b },
    ours: { "d/a.txt": null, "d/b.txt": null, "e/a.txt": a, "f/b.txt": b },
    theirs: { "d/new.txt": c },
    differs: "Where the directory went is not clear, so the file stays where it was put; git asks.",
  },
  {
    name: "a directory moved | a file added to it whose new place is taken",
    base: { "d/a.txt": a, "d/b.txt": b },
    ours: { "d/a.txt": null, "d/b.txt": null, "e/a.txt": a, "e/b.txt": b, "e/new.txt": "mine\n" },
    theirs: { "d/new.txt": c },
    differs: "Something else stands at the new place, so the file stays where it was put; git asks.",
  },
  {
    name: "a directory moved | another file moved into it",
    base: { "d/a.txt": a, "d/b.txt": b, "c.txt": c },
    ours: { "d/a.txt": null, "d/b.txt": null, "e/a.txt": a, "e/b.txt": b },
    theirs: { "c.txt": null, "d/c.txt": c },
  },
  {
    name: "a directory moved and a file edited | the file moved into it",
    base: { "d/a.txt": a, "d/b.txt": b, "c.txt": c },
    ours: { "d/a.txt": null, "d/b.txt": null, "e/a.txt": a, "e/b.txt": b, "c.txt": text(C.with(0, "edit")) },
    theirs: { "c.txt": null, "d/c.txt": c },
  },
  {
    name: "a directory moved | a file moved out of it",
    base: { "d/a.txt": a, "d/b.txt": b, "d/c.txt": c },
    ours: { "d/a.txt": null, "d/b.txt": null, "d/c.txt": null, "e/a.txt": a, "e/b.txt": b, "e/c.txt": c },
    theirs: { "d/c.txt": null, "c.txt": c },
  },
  {
    name: "a directory moved to the root | a file added to it",
    base: { "d/a.txt": a, "d/b.txt": b },
    ours: { "d/a.txt": null, "d/b.txt": null, "a.txt": a, "b.txt": b },
    theirs: { "d/new.txt": c },
  },
  {
    name: "a directory moved | moved to another place",
    base: { "d/a.txt": a, "d/b.txt": b },
    ours: { "d/a.txt": null, "d/b.txt": null, "e/a.txt": a, "e/b.txt": b },
    theirs: { "d/a.txt": null, "d/b.txt": null, "f/a.txt": a, "f/b.txt": b },
  },
  {
    name: "moved to where a directory begins | a file added to it",
    base: { "a.txt": a },
    ours: { "a.txt": null, d: a },
    theirs: { "d/new.txt": c },
  },
];

/** The same pairs with the sides changed over. */
const mirrored = moves.map((pair) => ({
  ...pair,
  name: `${pair.name} (other way round)`,
  ours: pair.theirs,
  theirs: pair.ours,
}));

/** What else can happen to whole files. */
export const treePairs: readonly Pair[] = [
  ...moves,
  ...mirrored,
  {
    name: "different files",
    base: { "a.txt": a, "b.txt": b },
    ours: { "a.txt": text(A.with(1, "ours")) },
    theirs: { "b.txt": text(B.with(1, "theirs")) },
  },
  {
    name: "deleted | edited",
    base: { "a.txt": a },
    ours: { "a.txt": null },
    theirs: { "a.txt": text(A.with(3, "edit")) },
  },
  {
    name: "edited | deleted",
    base: { "a.txt": a },
    ours: { "a.txt": text(A.with(3, "edit")) },
    theirs: { "a.txt": null },
  },
  {
    name: "deleted by both",
    base: { "a.txt": a, "b.txt": b },
    ours: { "a.txt": null },
    theirs: { "a.txt": null },
  },
  { name: "the same file added", base: { "a.txt": a }, ours: { "n.txt": c }, theirs: { "n.txt": c } },
  {
    name: "different files added at one path",
    base: { "a.txt": a },
    ours: { "n.txt": "ours\n" },
    theirs: { "n.txt": "theirs\n" },
  },
  {
    name: "files added at one path that are alike in part",
    base: { "a.txt": a },
    ours: { "n.txt": text(["ours", ...C]) },
    theirs: { "n.txt": text([...C, "theirs"]) },
  },
  {
    name: "different binaries added at one path",
    base: { "a.txt": a },
    ours: { n: Buffer.from([0, 1]) },
    theirs: { n: Buffer.from([0, 2]) },
  },
  { name: "empty file added by both", base: { "a.txt": a }, ours: { n: "" }, theirs: { n: "" } },
  {
    name: "a binary edited | deleted",
    base: { n: Buffer.from([0, 1]) },
    ours: { n: Buffer.from([0, 2]) },
    theirs: { n: null },
  },
  {
    name: "made executable | edited",
    base: { "x.sh": script },
    ours: { "x.sh": executable(script) },
    theirs: { "x.sh": script.replace("4", "four") },
  },
  {
    name: "edited | made executable",
    base: { "x.sh": script },
    ours: { "x.sh": script.replace("4", "four") },
    theirs: { "x.sh": executable(script) },
  },
  {
    name: "made executable by both",
    base: { "x.sh": script },
    ours: { "x.sh": executable(script) },
    theirs: { "x.sh": executable(script) },
  },
  {
    name: "made executable | deleted",
    base: { "x.sh": script },
    ours: { "x.sh": executable(script) },
    theirs: { "x.sh": null },
  },
  {
    name: "added by both, executable by one",
    base: {},
    ours: { "x.sh": executable(script) },
    theirs: { "x.sh": script },
    differs:
      "The content is the same; the change's bit is taken, as where a change made the file executable.",
  },
  {
    name: "a file | a directory of its name",
    base: { "a.txt": a },
    ours: { d: "file\n" },
    theirs: { "d/x.txt": "below\n" },
  },
  {
    name: "a directory | a file of its name",
    base: { "a.txt": a },
    ours: { "d/x.txt": "below\n" },
    theirs: { d: "file\n" },
  },
  {
    name: "a file made a directory | edited",
    base: { d: a },
    ours: { d: null, "d/x.txt": "below\n" },
    theirs: { d: text(A.with(3, "edit")) },
  },
  {
    name: "a file edited | made a directory",
    base: { d: a },
    ours: { d: text(A.with(3, "edit")) },
    theirs: { d: null, "d/x.txt": "below\n" },
  },
  {
    name: "a directory made a file | a file added to it",
    base: { "d/x.txt": "below\n" },
    ours: { "d/x.txt": null, d: c },
    theirs: { "d/y.txt": b },
  },
  {
    name: "names that differ in case only",
    base: { "a.txt": a },
    ours: { "N.txt": b },
    theirs: { "n.txt": c },
  },
  { name: "nothing in common", base: {}, ours: { "a.txt": a }, theirs: { "b.txt": b } },
  {
    name: "one side does nothing",
    base: { "a.txt": a },
    ours: {},
    theirs: { "a.txt": null, "b.txt": text(A.with(0, "x")) },
  },
];
