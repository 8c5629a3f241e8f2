import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { CLAIMED } from "./requirements.ts";

const ID = /\[((?:MU|OC|DOC|AG|SB|LLM|US|GW|UI|OB|DB|TE)-\w+)\]/g;

function citations(): Map<string, string[]> {
  const listed = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
    encoding: "utf8",
  });
  const found = new Map<string, string[]>();
  for (const path of listed.split("\n").filter((file) => /\.test\.tsx?$/.test(file) && existsSync(file))) {
    const titles = readFileSync(path, "utf8").matchAll(
      /\b(?:it|test|describe)(?:\.\w+)*\(\s*["'`]([^"'`]*)/g,
    );
    for (const [, title] of titles) {
      for (const [, id] of (title ?? "").matchAll(ID)) {
        if (id !== undefined) found.set(id, [...(found.get(id) ?? []), path]);
      }
    }
  }
  return found;
}

it("every claimed requirement is shown by a test that names it", () => {
  const cited = citations();
  expect(Object.keys(CLAIMED).filter((id) => !cited.has(id))).toEqual([]);
});

it("no test names a requirement that is not claimed", () => {
  expect([...citations().keys()].filter((id) => !(id in CLAIMED))).toEqual([]);
});
