import { describe, expect, it } from "vitest";
import { readConfig } from "./config.ts";
import { bareUrl, ConfigError, flag, list, number, oneOf, text, url } from "./read-env.ts";

describe("configuration", () => {
  it("needs nothing: every value has a default", () => {
    const config = readConfig({}, "/srv/cds");
    expect(config.ports).toEqual({ ui: 6711, api: 6813, auth: 6971, llm: 6988 });
    expect(config).toMatchObject({ host: "127.0.0.1", dataDir: "/srv/cds/data", dataDirGiven: false });
    expect(config.log).toEqual({ level: "warn", pretty: true });
    expect(config.database.pool).toBeLessThan(20);
    expect(config.auth.accessTokenSeconds).toBeLessThanOrEqual(86_400);
    expect(readConfig({}).instanceId).not.toBe(readConfig({}).instanceId);
  });

  it("[OC-6] knows the names of the OpenCode plan, the studio's own first", () => {
    const env = {
      OPENAI_API_KEY: "sk-1",
      NODE_ENV: "production",
      PORT: "8080",
      MAX_CONCURRENT_PROCESSES: "7",
      TEMP_DIR_PREFIX: "oc-",
      LOG_LEVEL: "warn",
    };
    const config = readConfig(env);
    expect(config.provider.apiKey).toBe("sk-1");
    expect(config.production).toBe(true);
    expect(config.log).toEqual({ level: "warn", pretty: false });
    expect(config.ports.ui).toBe(8080);
    expect(config.queue.maxConcurrent).toBe(7);
    expect(config.run.tempDirPrefix).toBe("oc-");
    const own = readConfig({ ...env, CDS_UI_PORT: "0", MAX_CONCURRENT_USERS: "9" });
    expect(own.ports.ui).toBe(0);
    expect(own.queue.maxConcurrent).toBe(9);
  });

  it("[MU-5] knows every threshold of admission", () => {
    const { queue } = readConfig({
      CDS_MAX_ACTIVE_PER_USER: "2",
      CDS_MEMORY_THRESHOLD: "0.5",
      CDS_DISK_THRESHOLD: "0.6",
      CDS_RATE_LIMIT_SECONDS: "0",
    });
    expect(queue).toMatchObject({
      perUser: 2,
      memoryThreshold: 0.5,
      diskThreshold: 0.6,
      secondsBetweenRequests: 0,
    });
    expect(readConfig({}).queue).toMatchObject({
      maxConcurrent: 20,
      memoryThreshold: 0.85,
      diskThreshold: 0.9,
    });
  });

  it("stops at a value out of range and names it", () => {
    const bad: Record<string, string> = {
      CDS_UI_PORT: "65536",
      CDS_DB_POOL: "many",
      CDS_LEASE_MS: "1000.5",
      LOG_LEVEL: "loud",
      CDS_ALLOW_REGISTRATION: "maybe",
      OPENAI_BASE_URL: "not a url",
      CDS_ACCESS_TOKEN_SECONDS: "100000",
    };
    for (const [name, value] of Object.entries(bad)) {
      expect(() => readConfig({ [name]: value }), name).toThrow(ConfigError);
      expect(() => readConfig({ [name]: value }), name).toThrow(`${name}: "`);
    }
  });

  it("reads each kind of value", () => {
    const env = {
      T: " x ",
      EMPTY: " ",
      L: "a, b,,c ",
      N: "1.5",
      YES: "Yes",
      NO: "off",
      U: "https://a.example/v1//",
    };
    expect([text(env, "T"), text(env, "EMPTY"), text(env, "EMPTY", "d"), text(env, "NONE")]).toEqual([
      "x",
      undefined,
      "d",
      undefined,
    ]);
    expect(list(env, "L")).toEqual(["a", "b", "c"]);
    expect(list(env, "NONE")).toEqual([]);
    expect([number(env, "N", 0, 0, 2), number(env, "NONE", 3, 0, 9)]).toEqual([1.5, 3]);
    expect([flag(env, "YES", false), flag(env, "NO", true), flag(env, "NONE", true)]).toEqual([
      true,
      false,
      true,
    ]);
    expect([oneOf(env, "T", "y", ["x", "y"]), oneOf(env, "NONE", "y", ["x", "y"])]).toEqual(["x", "y"]);
    expect([list(env, "L", ["z"]), list(env, "EMPTY", ["y", "z"])]).toEqual([
      ["a", "b", "c"],
      ["y", "z"],
    ]);
    expect([url(env, "U"), url(env, "NONE")]).toEqual(["https://a.example/v1", undefined]);
    expect([bareUrl(env, "U"), bareUrl(env, "NONE")]).toEqual(["https://a.example/v1", undefined]);
    for (const told of [
      "https://me:secret@a.example",
      "https://a.example/?token=secret",
      "https://a.example/#x",
    ]) {
      expect(() => bareUrl({ U: told }, "U"), told).toThrow(/^U: the address must hold no user name/);
    }
  });
});
