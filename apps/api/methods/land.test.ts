import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readTree } from "#database/projects/index.ts";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";
import { type Files, TestProject } from "#tests/support/projects.ts";

let server: ApiServer;
let ada: ApiUser;
beforeAll(async () => {
  server = await apiServer();
  ada = await server.user("ada");
});
afterAll(() => server[Symbol.asyncDispose]());

/** Adds a price and a discount; the test holds as long as only one of them is doubled. */
const SHOP: Files = {
  "package.json": '{ "type": "module", "scripts": { "test": "node --test" } }\n',
  "price.js": "export const price = 10;\n",
  "tax.js": "export const tax = 1;\n",
  "shop.test.js": [
    'import assert from "node:assert";',
    'import { test } from "node:test";',
    'import { price } from "./price.js";',
    'import { tax } from "./tax.js";',
    'test("a basket stays affordable", () => assert(price * tax < 35));',
    "",
  ].join("\n"),
};
const DEARER = { "price.js": "export const price = 20;\n" };
const TAXED = { "tax.js": "export const tax = 2;\n" };

const project = (files: Files = SHOP) => TestProject.make(server.test.database, files, ada.id);
const accept = (change_id: string, more: object = {}) =>
  ada.client.call("change.accept", { change_id, ...more });
const textAt = async (of: TestProject, path: string) => (await of.files())[path];

describe("[AG-2] a change that lands", () => {
  it("is taken as it is onto the revision it was made from", async () => {
    const shop = await project();
    const { revision } = await shop.head();
    const change = await shop.propose({ "price.js": "export const price = 100;\n" }, revision);
    // Its agent was judged with this very tree; what its user accepts is theirs to decide.
    expect(await accept(change)).toMatchObject({ revision: revision + 1 });
  });

  it("is refused where two that each pass fail together, and nothing is changed", async () => {
    const shop = await project();
    const { revision } = await shop.head();
    const [one, two] = [await shop.propose(DEARER, revision), await shop.propose(TAXED, revision)];
    expect(await accept(one)).toMatchObject({ revision: revision + 1 });
    const refused = accept(two);
    await expect(refused).rejects.toMatchObject({
      code: "ResultInvalid",
      details: {
        current_revision: revision + 1,
        checks: [
          { passed: false, before: true, output: expect.stringContaining("a basket stays affordable") },
        ],
      },
    });
    expect(await shop.head()).toMatchObject({ revision: revision + 1 });
    expect((await ada.client.call("change.get", { change_id: two })).state).toBe("proposed");
    // Somebody may decide to have it all the same.
    expect(await accept(two, { force: true })).toMatchObject({ revision: revision + 2 });
    expect(await textAt(shop, "tax.js")).toBe(TAXED["tax.js"]);
  });

  it("lands merged where both work together, and where the project did not work before either", async () => {
    const shop = await project();
    const { revision } = await shop.head();
    const fine = await shop.propose(TAXED, revision);
    await shop.commit({ "README.md": "# Shop\n" });
    expect(await accept(fine)).toMatchObject({ revision: revision + 2 });

    const broken = await project({ ...SHOP, "price.js": "export const price = 99;\n" });
    const base = (await broken.head()).revision;
    const change = await broken.propose(TAXED, base);
    await broken.commit({ "README.md": "# Shop\n" });
    expect(await accept(change)).toMatchObject({ revision: base + 2 });
  });

  it("is tried when only a part of it is taken, and when somebody resolved a conflict", async () => {
    const shop = await project();
    const { revision } = await shop.head();
    const both = {
      ...DEARER,
      "tax.js": "export const taxes = 1;\n",
      "shop.test.js": "import './price.js';\n",
    };
    const change = await shop.propose(both, revision);
    const half = { hunks: [{ path: "tax.js" }] };
    await expect(accept(change, half)).rejects.toMatchObject({ code: "ResultInvalid" });
    const clash = await shop.propose({ "price.js": "export const price = 11;\n" }, revision);
    await shop.commit({ "price.js": "export const price = 12;\n" });
    const resolve = (content: string) => ({ resolutions: [{ path: "price.js", content }] });
    await expect(accept(clash, resolve("export const price = 50;\n"))).rejects.toMatchObject({
      code: "ResultInvalid",
    });
    expect(await accept(clash, resolve("export const price = 13;\n"))).toMatchObject({ state: "accepted" });
    expect(await textAt(shop, "price.js")).toBe("export const price = 13;\n");
  });

  it("takes as long as the project's own checks do, which is longer than other calls may", async () => {
    await using slow = await apiServer({}, { call: 1000 });
    const eve = await slow.user("eve");
    const scripts = { test: "sleep 2 && node --test" };
    const files = { ...SHOP, "package.json": JSON.stringify({ type: "module", scripts }) };
    const shop = await TestProject.make(slow.test.database, files, eve.id);
    const { revision } = await shop.head();
    const change = await shop.propose(TAXED, revision);
    await shop.commit({ "README.md": "# Shop\n" });
    const accepted = await eve.client.call("change.accept", { change_id: change });
    expect(accepted).toMatchObject({ revision: revision + 2 });
  });

  it("leaves nothing behind: no slot in use, no directory", async () => {
    const shop = await project();
    const { revision } = await shop.head();
    const change = await shop.propose(TAXED, revision);
    await shop.commit(DEARER);
    await expect(accept(change)).rejects.toMatchObject({ code: "ResultInvalid" });
    const tree = await readTree(server.test.database.db, shop.id, revision);
    expect(tree).toHaveLength(4);
    expect((await ada.client.call("run.list", {})).processes).toEqual([]);
  });
});
