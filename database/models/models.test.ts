import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { setPrice } from "../accounts/prices.ts";
import {
  findLocalModel,
  installModel,
  listLocalModels,
  resetLoaded,
  setModelState,
  uninstallModel,
} from "./index.ts";

describe("[US-1] models of this machine", () => {
  let test: TestDatabase;
  beforeAll(async () => {
    test = await testDatabase();
  });
  afterAll(() => test?.[Symbol.asyncDispose]());

  it("are installed, found, listed by name and forgotten; a price of the name stays", async () => {
    const { db } = test.database;
    await setPrice(db, { model: "tiny-b", input: 7, cached: null, output: 9 });
    expect(await listLocalModels(db)).toEqual([]);
    await installModel(db, { name: "tiny-b", file: "tiny-b.gguf", size_bytes: 10 });
    await installModel(db, { name: "tiny-a", file: "sub.gguf", size_bytes: 5_000_000_000, sha256: "ab" });
    expect((await listLocalModels(db)).map(({ name }) => name)).toEqual(["tiny-a", "tiny-b"]);
    expect(await findLocalModel(db, "tiny-a")).toMatchObject({
      ...{ file: "sub.gguf", size_bytes: 5_000_000_000, sha256: "ab", is_loaded: false, enabled: true },
      load_config: {},
    });
    await uninstallModel(db, "tiny-b");
    expect(await findLocalModel(db, "tiny-b")).toBeUndefined();
    const row = await db.selectFrom("models").selectAll().where("name", "=", "tiny-b").executeTakeFirst();
    expect(row).toMatchObject({ input_cost_per_million: 7, file: null, is_loaded: false });
  });

  it("keep what an administrator wants, through a new file of the same name; loaded is only until the end", async () => {
    const { db } = test.database;
    await installModel(db, { name: "kept", file: "kept.gguf", size_bytes: 1 });
    await setModelState(db, "kept", {
      ...{ is_loaded: true, enabled: false, kind: "chat", context_size: 2048 },
      load_config: { threads: 2 },
    });
    await setModelState(db, "kept", {});
    await installModel(db, { name: "kept", file: "kept.gguf", size_bytes: 2 });
    await resetLoaded(db);
    expect(await findLocalModel(db, "kept")).toMatchObject({
      ...{ is_loaded: false, enabled: false, kind: "chat", context_size: 2048, size_bytes: 2 },
      load_config: { threads: 2 },
    });
  });
});
