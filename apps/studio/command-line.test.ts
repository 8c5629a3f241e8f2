import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

interface Ended {
  code: number | null;
  stdout: string;
}

function run(file: string, args: string[], env: Record<string, string>): Promise<Ended> {
  return new Promise((resolve) => {
    const options = { env: { PATH: process.env.PATH ?? "", LOG_LEVEL: "silent", ...env }, timeout: 90_000 };
    const child = execFile(process.execPath, [`apps/studio/${file}`, ...args], options, (_error, stdout) =>
      resolve({ code: child.exitCode, stdout }),
    );
  });
}

describe("the command line", () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "cds-cli-"));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  it("explains itself and refuses what it does not know", async () => {
    expect(await run("main.ts", ["--help"], {})).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("npm start"),
    });
    expect(await run("main.ts", ["--nonsense"], {})).toMatchObject({
      code: 2,
      stdout: expect.stringContaining('Unknown option "--nonsense"'),
    });
  });

  it("names the setting that is wrong", async () => {
    expect(await run("main.ts", [], { CDS_UI_PORT: "banana" })).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('CDS_UI_PORT: "banana" is not a number from 0 to 65535'),
    });
  });

  it("says which port is taken, and leaves nothing running", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as AddressInfo;
    const free = { CDS_API_PORT: "0", CDS_AUTH_PORT: "0", CDS_LLM_PORT: "0" };
    const ended = await run("main.ts", [], { ...free, CDS_UI_PORT: String(port), CDS_DATA_DIR: directory });
    other.close();
    expect(ended.code).toBe(1);
    expect(ended.stdout).toContain(String(port));
    expect(ended.stdout).toContain("Another program (or studio) uses that port");
  }, 90_000);

  it("examines the machine part by part", async () => {
    const { stdout } = await run("doctor.ts", [], {});
    for (const part of [
      "node",
      "data",
      "database",
      "sandbox fs",
      "sandbox run",
      "sandbox wasm",
      "sandbox micro",
      "languages",
      "opencode",
      "ripgrep",
      "git",
      "models",
      "inference",
    ]) {
      expect(stdout).toMatch(new RegExp(`^(ok|NOT)\\s+${part}\\b`, "m"));
    }
    expect(stdout).toMatch(/^ok\s+database/m);
    const broken = await run("doctor.ts", [], { OPENCODE_BIN: "/nowhere/opencode" });
    expect(broken.code).toBe(1);
    expect(broken.stdout).toMatch(/^NOT\s+opencode.*\/nowhere\/opencode/m);
  }, 120_000);
});
