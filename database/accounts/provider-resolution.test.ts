import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSecrets, readConfig, type Secrets } from "#platform";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { addUser } from "#tests/support/queue.ts";
import { installModel, setModelState, uninstallModel } from "../models/index.ts";
import { costOf, type Price } from "./prices.ts";
import { providerContext, resolveCall, resolveProvider, usableModels } from "./provider-resolution.ts";
import { setProvider } from "./providers.ts";

const URL_A = "https://a.example/v1";
const server = { apiKey: "sk-server", baseUrl: "https://server.example/v1", models: [] as string[] };
const none = { ...server, apiKey: undefined };
const { billing } = readConfig({});

describe("provider resolution", () => {
  let test: TestDatabase;
  let secrets: Secrets;
  let dataDir: string;
  beforeAll(async () => {
    test = await testDatabase();
    dataDir = await mkdtemp(join(tmpdir(), "cds-resolve-"));
    secrets = await openSecrets({ dataDir });
  });
  afterAll(async () => {
    await test?.[Symbol.asyncDispose]();
    await rm(dataDir, { recursive: true, force: true });
  });

  const store = async (user_id: string, api_key: string | undefined, models: string[], base_url = URL_A) => {
    const sealed =
      api_key === undefined ? undefined : secrets.seal(api_key, providerContext(user_id, base_url));
    await setProvider(test.database.db, { user_id, base_url, api_key_encrypted: sealed, models });
  };
  const resolve = (user_id: string, model: string, provider: typeof server | typeof none) =>
    resolveProvider(test.database.db, { secrets, provider, user_id, model });

  it("[MU-4] the user's key, then the server's, then a clear error", async () => {
    const user = await addUser(test.database.db);
    await expect(resolve(user, "m", none)).rejects.toMatchObject({
      code: "NoProviderKey",
      message: expect.stringContaining("provider.set or OPENAI_API_KEY"),
    });
    expect(await resolve(user, "m", server)).toEqual({
      source: "server",
      base_url: server.baseUrl,
      api_key: "sk-server",
    });
    await store(user, "sk-mine", ["m"]);
    expect(await resolve(user, "m", server)).toEqual({ source: "user", base_url: URL_A, api_key: "sk-mine" });
    expect(await resolve(user, "demo", none)).toEqual({ source: "demo" });
  });

  it("a model of this machine comes after a provider that lists its name, and before one that lists nothing", async () => {
    const { db } = test.database;
    await installModel(db, { name: "local-m", file: "local-m.gguf", size_bytes: 1 });
    const user = await addUser(db);
    expect(await resolve(user, "local-m", none)).toEqual({ source: "local" });
    expect(await resolve(user, "local-m", { ...server, models: ["local-m"] })).toEqual({ source: "local" });
    await store(user, "sk-mine", []);
    expect(await resolve(user, "local-m", server)).toEqual({ source: "local" });
    await store(user, "sk-mine", ["local-m"]);
    expect(await resolve(user, "local-m", server)).toMatchObject({ source: "user" });
    const listed = async () =>
      (await usableModels(db, { provider: none, billing, user_id: user })).map(({ source }) => source);
    expect(await listed()).toEqual(["demo", "user"]);
    await store(user, "sk-mine", ["other"]);
    expect(await listed()).toEqual(["demo", "user", "local"]);
    await setModelState(db, "local-m", { kind: "embedding" });
    const usable = await usableModels(db, { provider: none, billing, user_id: user });
    expect(usable.filter(({ embedding }) => embedding).map(({ id }) => id)).toEqual(["local-m"]);
    // Whoever names one that an administrator unloaded is told so by the model server, not that it does not exist.
    await setModelState(db, "local-m", { enabled: false });
    expect(await listed()).toEqual(["demo", "user"]);
    expect(await resolve(user, "local-m", none)).toEqual({ source: "local" });
    await uninstallModel(db, "local-m");
  });

  it("[MU-4] a base URL without a key of its own is never used", async () => {
    const user = await addUser(test.database.db);
    await store(user, undefined, ["m"]);
    await expect(resolve(user, "m", none)).rejects.toMatchObject({ code: "NoProviderKey" });
    expect(await resolve(user, "m", server)).toMatchObject({ source: "server", base_url: server.baseUrl });
  });

  it("a list limits, an empty list does not; the server's list is reached by name only", async () => {
    const user = await addUser(test.database.db);
    await store(user, "sk-mine", ["a"]);
    await expect(resolve(user, "b", none)).rejects.toMatchObject({ code: "ModelNotFound" });
    await expect(resolve(user, "b", server)).rejects.toMatchObject({ code: "ModelNotFound" });
    expect(await resolve(user, "b", { ...server, models: ["b"] })).toMatchObject({ source: "server" });
    await store(user, undefined, []);
    expect(await resolve(user, "anything", server)).toMatchObject({ source: "user", api_key: "sk-mine" });
    const other = await addUser(test.database.db);
    await expect(resolve(other, "c", { ...server, models: ["b"] })).rejects.toMatchObject({
      code: "ModelNotFound",
    });
  });

  it("[MU-4] a key moved to another user or host in the database is refused", async () => {
    const [ada, eve] = [await addUser(test.database.db), await addUser(test.database.db)];
    const stolen = secrets.seal("sk-ada", providerContext(ada, URL_A));
    await setProvider(test.database.db, {
      user_id: eve,
      base_url: URL_A,
      api_key_encrypted: stolen,
      models: [],
    });
    await expect(resolve(eve, "m", server)).rejects.toMatchObject({ code: "InternalError" });
    await setProvider(test.database.db, {
      user_id: ada,
      base_url: "https://evil.example/v1",
      api_key_encrypted: stolen,
      models: [],
    });
    await expect(resolve(ada, "m", server)).rejects.toMatchObject({ code: "InternalError" });
  });

  it("prices by model, else by the server's default; costs round up", async () => {
    const { db } = test.database;
    await db
      .insertInto("models")
      .values({ name: "dear", input_cost_per_million: 5, output_cost_per_million: 7 })
      .execute();
    const user_id = await addUser(db);
    const call = (model: string) => resolveCall(db, { secrets, provider: server, billing, user_id, model });
    expect(await call("dear")).toEqual({
      route: { source: "server", base_url: server.baseUrl, api_key: "sk-server" },
      price: { inputPerMillion: 5, cachedPerMillion: 5, outputPerMillion: 7 },
    });
    const usual = {
      inputPerMillion: billing.inputPerMillion,
      cachedPerMillion: billing.inputPerMillion,
      outputPerMillion: billing.outputPerMillion,
    };
    expect(await call("demo")).toEqual({ route: { source: "demo" }, price: usual });
    await store(user_id, "sk-mine", []);
    expect(await call("other")).toEqual({
      route: { source: "user", base_url: URL_A, api_key: "sk-mine" },
      price: usual,
    });
    const cost = (price: Price, input_tokens: number, output_tokens: number) =>
      costOf(price, { input_tokens, cached_tokens: 0, output_tokens });
    const price = { inputPerMillion: 5, cachedPerMillion: 1, outputPerMillion: 7 };
    expect([cost(price, 0, 0), cost(price, 1, 0), cost(price, 200_000, 0), cost(price, 200_000, 1)]).toEqual([
      0, 1, 1, 2,
    ]);
    const largest = { inputPerMillion: 1e12, cachedPerMillion: 0, outputPerMillion: 1 };
    expect(cost(largest, 8_000_000_001, 1)).toBe(8_000_000_001_000_001);
  });

  it("lists what a user can name, once each, with its price", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const provider = { ...server, models: ["dear", "shared"] };
    const list = async (settings: typeof server | typeof none) =>
      (await usableModels(db, { provider: settings, billing, user_id: user })).map(
        ({ id, source }) => `${id}:${source}`,
      );
    expect(await list(none)).toEqual(["demo:demo"]);
    expect(await list(provider)).toEqual(["demo:demo", "dear:server", "shared:server"]);
    await store(user, "sk-mine", ["shared", "own"]);
    expect(await list(provider)).toEqual(["demo:demo", "shared:user", "own:user", "dear:server"]);
    await store(user, undefined, []);
    expect(await list(provider)).toEqual(["demo:demo"]);
    const [, dear] = await usableModels(db, { provider, billing, user_id: await addUser(db) });
    expect(dear).toMatchObject({ id: "dear", inputPerMillion: 5, outputPerMillion: 7 });
  });
});
