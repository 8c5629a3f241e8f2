import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { makeOwner, QUOTA, refusalOf, TestProject } from "#tests/support/projects.ts";
import { hashContent, type NamedVersion, readContents, readTree } from "./index.ts";
import { ensureProject } from "./named.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test?.[Symbol.asyncDispose]());

describe("a project by its name", () => {
  it("is made once, however many ask for it at once, and found from then on", async () => {
    const owner_id = await makeOwner(test.database);
    const wanted = { owner_id, name: "Playground", quota: QUOTA };
    const asked = await Promise.all(Array.from({ length: 6 }, () => ensureProject(test.database, wanted)));
    expect(new Set(asked.map(({ id }) => id)).size).toBe(1);
    expect(await ensureProject(test.database, wanted)).toMatchObject({
      id: asked[0]?.id,
      name: "Playground",
    });
    const full = { ...wanted, name: "Another", quota: { ...QUOTA, userProjects: 1 } };
    expect(await refusalOf(ensureProject(test.database, full))).toMatchObject({ code: "QuotaExceeded" });
  });
});

describe("contents of many files", () => {
  it("come in the files' order, page by page; one that is gone is an error", async () => {
    const files = Object.fromEntries(
      Array.from({ length: 600 }, (_, at) => [`f/${at}.txt`, `content ${at % 7}`]),
    );
    const project = await TestProject.make(test.database, files);
    const tree: NamedVersion[] = await readTree(test.database.db, project.id);
    const read: Record<string, string> = {};
    for await (const { file, content } of readContents(test.database.db, tree)) {
      read[file.path] = content.toString();
    }
    expect(read).toEqual(files);
    expect(Object.keys(read)).toEqual(tree.map(({ path }) => path));
    const gone = {
      path: "gone",
      blob_hash: hashContent(Buffer.from("never stored")),
      size: 12,
      executable: false,
    };
    await expect(readContents(test.database.db, [gone]).next()).rejects.toThrow(/missing/);
  });
});
