import { execFile } from "node:child_process";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ConfigError } from "./config/read-env.ts";
import { openSecrets } from "./secrets.ts";

let base: string;
let count = 0;
const freshDir = () => join(base, String(count++));

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), "cds-secrets-"));
});
afterAll(() => rm(base, { recursive: true, force: true }));

describe("secrets", () => {
  it("makes a master key once, for its owner only, and finds it again", async () => {
    const dataDir = freshDir();
    const first = await openSecrets({ dataDir });
    const again = await openSecrets({ dataDir });
    expect(again.key("x")).toEqual(first.key("x"));
    expect((await stat(join(dataDir, "master.key"))).mode & 0o777).toBe(0o600);
    expect(await readdir(dataDir)).toEqual(["master.key"]);
  });

  it("tightens a key file that a restore left open", async () => {
    const dataDir = freshDir();
    await openSecrets({ dataDir });
    await chmod(join(dataDir, "master.key"), 0o644);
    await openSecrets({ dataDir });
    expect((await stat(join(dataDir, "master.key"))).mode & 0o777).toBe(0o600);
  });

  it("starters that race agree on one key", async () => {
    for (let round = 0; round < 20; round++) {
      const dataDir = freshDir();
      const all = await Promise.all(Array.from({ length: 8 }, () => openSecrets({ dataDir })));
      expect(new Set(all.map((secrets) => secrets.key("x").toString("hex"))).size).toBe(1);
      expect(await readdir(dataDir)).toEqual(["master.key"]);
    }
  });

  it("processes that race agree on one key", async () => {
    const dataDir = freshDir();
    const module = new URL("./secrets.ts", import.meta.url).href;
    const program = `const { openSecrets } = await import(${JSON.stringify(module)});
      process.stdout.write((await openSecrets({ dataDir: ${JSON.stringify(dataDir)} })).key("x").toString("hex"));`;
    const run = () => promisify(execFile)(process.execPath, ["--input-type=module", "-e", program]);
    const outputs = await Promise.all([run(), run(), run(), run()]);
    expect(new Set(outputs.map(({ stdout }) => stdout)).size).toBe(1);
    expect(outputs[0]?.stdout).toMatch(/^[0-9a-f]{64}$/);
  });

  it("never replaces a key file it cannot use", async () => {
    const dataDir = freshDir();
    await openSecrets({ dataDir });
    const path = join(dataDir, "master.key");
    await writeFile(path, "short\n");
    await expect(openSecrets({ dataDir })).rejects.toThrow(ConfigError);
    expect(await readFile(path, "utf8")).toBe("short\n");
    const elsewhere = freshDir();
    await writeFile(elsewhere, "");
    await expect(openSecrets({ dataDir: elsewhere })).rejects.toThrow(/EEXIST|ENOTDIR/);
  });

  it("reports what keeps the file from being read or made", async () => {
    const dataDir = freshDir();
    await openSecrets({ dataDir: join(dataDir, "master.key") });
    await expect(openSecrets({ dataDir })).rejects.toThrow(/EISDIR/);
    await expect(openSecrets({ dataDir: "/proc/1/task" })).rejects.toThrow(/ENOENT|EACCES|EPERM/);
  });

  it("takes a given master key, if it is long enough", async () => {
    const dataDir = freshDir();
    const masterKey = "correct horse battery staple, twice over";
    const secrets = await openSecrets({ masterKey, dataDir });
    expect((await openSecrets({ masterKey, dataDir })).key("x")).toEqual(secrets.key("x"));
    expect(secrets.key("x")).not.toEqual(secrets.key("y"));
    expect(secrets.key("x")).toHaveLength(32);
    await expect(openSecrets({ masterKey: "short", dataDir })).rejects.toThrow(/CDS_MASTER_KEY/);
  });

  it("[MU-4] opens what it sealed, and refuses it altered, elsewhere or under another key", async () => {
    const secrets = await openSecrets({ dataDir: freshDir() });
    const sealed = secrets.seal("sk-geheim-ä", "provider:usr_1");
    expect(sealed.toString("latin1")).not.toContain("geheim");
    expect(secrets.open(sealed, "provider:usr_1")).toBe("sk-geheim-ä");
    expect(secrets.open(secrets.seal("", "c"), "c")).toBe("");
    expect(secrets.seal("sk-geheim-ä", "provider:usr_1")).not.toEqual(sealed);
    const refused = /cannot be opened/;
    expect(() => secrets.open(sealed, "provider:usr_2")).toThrow(refused);
    for (let index = 0; index < sealed.length; index++) {
      const altered = Buffer.from(sealed);
      altered[index] = (altered[index] ?? 0) ^ 1;
      expect(() => secrets.open(altered, "provider:usr_1")).toThrow(refused);
    }
    expect(() => secrets.open(sealed.subarray(0, 20), "provider:usr_1")).toThrow(refused);
    const other = await openSecrets({ dataDir: freshDir() });
    expect(() => other.open(sealed, "provider:usr_1")).toThrow(refused);
  });
});
