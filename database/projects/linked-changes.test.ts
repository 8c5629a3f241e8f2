import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { QUOTA, TestProject } from "#tests/support/projects.ts";
import { acceptChange, getChange, proposedBytes, rejectChange } from "./index.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test?.[Symbol.asyncDispose]());

const accept = (change_id: string) =>
  acceptChange(test.database, { change_id, decided_by: "usr_ada", quota: QUOTA });
const stateOf = async (id: string) => {
  const { state, revision } = await getChange(test.database.db, id);
  return [state, revision];
};

describe("changes made over others", () => {
  it("[AG-2] are accepted with all they build on, at one revision; decided ones stay as they are", async () => {
    const project = await TestProject.make(test.database, { "a.txt": "1\n" });
    const elsewhere = await TestProject.make(test.database, { "a.txt": "1\n" });
    const foreign = await elsewhere.propose({ "a.txt": "x\n" }, 1);
    const first = await project.propose({ "a.txt": "2\n" }, 1);
    const refused = await project.propose({ "r.txt": "r\n" }, 1, { builds_on: [first] });
    await rejectChange(test.database, { change_id: refused, decided_by: "usr_ada" });
    const second = await project.propose({ "a.txt": "3\n" }, 1, { builds_on: [first, foreign, "chg_gone"] });
    const third = await project.propose({ "a.txt": "4\n" }, 1, { builds_on: [second, refused] });
    const apart = await project.propose({ "z.txt": "z\n" }, 1);
    expect(await accept(third)).toEqual({ revision: 2 });
    expect(await project.files()).toEqual({ "a.txt": "4\n" });
    for (const id of [first, second, third]) expect(await stateOf(id)).toEqual(["accepted", 2]);
    expect(await stateOf(refused)).toEqual(["rejected", null]);
    expect(await stateOf(apart)).toEqual(["proposed", null]);
    expect(await stateOf(foreign)).toEqual(["proposed", null]);
  });

  it("[AG-2] what a change replaces is rejected once that one is accepted, not before", async () => {
    const project = await TestProject.make(test.database, { "a.txt": "1\n" });
    const replaced = await project.propose({ "a.txt": "mine\n" }, 1);
    await project.commit({ "a.txt": "theirs\n" });
    const dropped = await project.propose({ "a.txt": "no\n" }, 2, { resolves: replaced });
    await rejectChange(test.database, { change_id: dropped, decided_by: "usr_ada" });
    expect(await stateOf(replaced)).toEqual(["proposed", null]);
    const resolving = await project.propose({ "a.txt": "both\n" }, 2, { resolves: replaced });
    expect(await accept(resolving)).toEqual({ revision: 3 });
    expect(await stateOf(replaced)).toEqual(["rejected", null]);
  });

  it("what waits for a decision counts until there is one", async () => {
    const project = await TestProject.make(test.database, { "a.txt": "1\n" });
    const bytes = () => proposedBytes(test.database.db, project.id);
    expect(await bytes()).toBe(0);
    const id = await project.propose({ "a.txt": null, "b.txt": "12345", "c.txt": "123" }, 1);
    expect(await bytes()).toBe(8);
    await accept(id);
    expect(await bytes()).toBe(0);
  });

  it("changes that name each other come to an end", async () => {
    const project = await TestProject.make(test.database, { "a.txt": "1\n" });
    await project.propose({ "a.txt": "2\n" }, 1, { id: "chg_ring_1", builds_on: ["chg_ring_2"] });
    await project.propose({ "b.txt": "2\n" }, 1, {
      id: "chg_ring_2",
      builds_on: ["chg_ring_1"],
      resolves: "chg_ring_1",
    });
    await accept("chg_ring_2");
    // The more lasting word wins: what is accepted is not rejected as well.
    expect(await stateOf("chg_ring_1")).toEqual(["accepted", 2]);
  });
});
