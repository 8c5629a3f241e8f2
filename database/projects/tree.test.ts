import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decide, sameVersion } from "./three-way.ts";
import { clashesAmong, diffTrees } from "./tree.ts";
import type { FileVersion, NamedVersion } from "./types.ts";

const version = (content: string, executable = false): FileVersion => ({
  blob_hash: Buffer.from(content),
  size: content.length,
  executable,
});
const [one, two, three] = [version("1"), version("2"), version("3")];
const decideOn = (base: FileVersion | null, current: FileVersion | null, proposed: FileVersion | null) =>
  decide({ path: "a", base, current, proposed });

describe("decide", () => {
  it.each([
    ["nothing proposed", one, one, one, { kind: "keep" }],
    ["only the project changed", one, two, one, { kind: "keep" }],
    ["both made the same", one, two, two, { kind: "keep" }],
    ["both deleted", one, null, null, { kind: "keep" }],
    ["both added the same", null, two, two, { kind: "keep" }],
    ["the project deleted, the change left it", one, null, one, { kind: "keep" }],
    ["only the change", one, one, two, { kind: "take", to: two }],
    ["the change added", null, null, two, { kind: "take", to: two }],
    ["the change deleted", one, one, null, { kind: "take", to: null }],
    ["deleted here, edited there", one, null, two, { kind: "conflict", conflict: "delete_modify" }],
    ["edited here, deleted there", one, two, null, { kind: "conflict", conflict: "modify_delete" }],
    ["both added", null, one, two, { kind: "conflict", conflict: "add_add" }],
    ["both edited", one, two, three, { kind: "merge", executable: false }],
  ] as const)("%s", (_name, base, current, proposed, decision) => {
    expect(decideOn(base, current, proposed)).toEqual(decision);
  });

  it("the executable bit merges apart from the content", () => {
    expect(decideOn(one, two, version("1", true))).toEqual({ kind: "take", to: version("2", true) });
    expect(decideOn(one, version("1", true), two)).toEqual({ kind: "take", to: version("2", true) });
    expect(decideOn(one, version("2", true), two)).toEqual({ kind: "take", to: version("2", true) });
    expect(decideOn(one, version("2", true), three)).toEqual({ kind: "merge", executable: true });
    expect(decideOn(null, version("2", true), two)).toEqual({ kind: "take", to: two });
  });
});

describe("trees", () => {
  const tree = fc
    .dictionary(
      fc.stringMatching(/^[a-c]{1,3}$/),
      fc.record({ content: fc.constantFrom("1", "2"), executable: fc.boolean() }),
    )
    .map((files): NamedVersion[] =>
      Object.entries(files).map(([path, file]) => ({ path, ...version(file.content, file.executable) })),
    );

  it("a diff applied to the one tree gives the other, and says nothing that is no difference", () => {
    fc.assert(
      fc.property(tree, tree, (from, to) => {
        const result = new Map<string, FileVersion>(from.map(({ path, ...file }) => [path, file]));
        for (const { path, to: file } of diffTrees(from, to)) {
          expect(sameVersion(result.get(path) ?? null, file)).toBe(false);
          if (file === null) result.delete(path);
          else result.set(path, file);
        }
        expect(result).toEqual(new Map(to.map(({ path, ...file }) => [path, file])));
      }),
    );
    const some = [
      { path: "b", ...one },
      { path: "a", ...one },
    ];
    expect(diffTrees(some, []).map(({ path }) => path)).toEqual(["a", "b"]);
  });

  it("knows a path that another path needs as a directory", () => {
    expect(clashesAmong(["a", "a/b", "c/d", "c.js"])).toEqual(["a"]);
    expect(clashesAmong(["a/b", "a/c"])).toEqual([]);
  });
});
