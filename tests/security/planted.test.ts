import { lstat, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Slot } from "#sandbox";
import { NODE, specFor } from "#sandbox/testing/harness.ts";
import {
  type Canaries,
  type HostileDirectory,
  openHostileDirectory,
  plantCanaries,
  SECRET,
} from "../support/canaries.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { collected, type HandedPlace, openPlace } from "../support/handed-workspace.ts";

let test: TestDatabase;
let hostile: HostileDirectory;
let canaries: Canaries;
let before: Record<string, string>;
let slot: Slot;
let handed: HandedPlace;
beforeAll(async () => {
  test = await testDatabase();
  hostile = await openHostileDirectory();
});
afterAll(async () => {
  await hostile?.[Symbol.asyncDispose]();
  await test?.[Symbol.asyncDispose]();
});
beforeEach(async () => {
  canaries = await plantCanaries();
  before = await canaries.look();
  slot = await hostile.opened.sandboxes.slots.acquire();
  handed = await openPlace(test, hostile, slot);
});
afterEach(async () => {
  await slot.release();
  await canaries[Symbol.asyncDispose]();
});

const FILES = { "a.txt": "a\n", "dir/b.txt": "b\n", ".gitignore": "*.log\n", "run.sh": "#!/bin/sh\n" };

describe("links planted where the host writes later", () => {
  it("[MU-7] a directory that an earlier run had is filled anew, and nothing goes through what it left", async () => {
    await handed.inside(
      `const fs = require("fs"), canary = process.env.CANARY;
       for (const name of ["request", "work", "prompts", "outputs", "opencode.json", ".opencode"]) fs.symlinkSync(canary, name);
       fs.mkdirSync("locked/inner", { recursive: true }); fs.symlinkSync(canary, "locked/inner/link"); fs.chmodSync("locked", 0);`,
      { CANARY: canaries.dir },
    );
    const workspace = await handed.prepare(FILES);
    await workspace.enter();
    expect(await readdir(handed.place.area)).toEqual(["request"]);
    expect((await lstat(join(handed.place.area, "request"))).isDirectory()).toBe(true);
    expect(await readFile(join(handed.place.area, "request/work/dir/b.txt"), "utf8")).toBe("b\n");
    expect(await canaries.look()).toEqual(before);
    await workspace.remove();
    expect(await readdir(handed.place.area)).toEqual([]);
    expect(await canaries.look()).toEqual(before);
  });

  it("a program that goes on planting meanwhile gets nothing written elsewhere", async () => {
    const { sandboxes } = hostile.opened;
    const script = `
      const fs = require("fs"), attempt = (act) => { try { act(); } catch {} };
      fs.writeSync(1, "ready\\n");
      for (;;) {
        attempt(() => fs.symlinkSync(process.env.CANARY, "/area/request"));
        attempt(() => fs.symlinkSync(process.env.CANARY, "/area/request/work/link"));
        attempt(() => fs.renameSync("/area/request/work", "/area/request/moved"));
        attempt(() => fs.symlinkSync(process.env.CANARY, "/area/request/work"));
        attempt(() => fs.renameSync("/area/request", "/area/other"));
      }`;
    const planter = await sandboxes.start(
      specFor(slot, [NODE, "--input-type=commonjs", "-e", script], {
        mounts: [
          { source: handed.place.area, target: "/area", mode: "rw" },
          { source: process.execPath, target: NODE, mode: "ro" },
        ],
        env: { CANARY: canaries.dir },
      }),
    );
    await new Promise((resolve) => planter.stdout.once("data", resolve));
    const outcomes = new Set<string>();
    for (let round = 0; round < 10 || (!outcomes.has("refused") && round < 200); round += 1) {
      const workspace = await handed.prepare(FILES);
      const outcome = await workspace
        .enter()
        .then(
          () => collected(workspace),
          (error: unknown) => error,
        )
        .catch((error: unknown) => error);
      if (
        !(outcome instanceof Error) &&
        outcome !== null &&
        typeof outcome === "object" &&
        "files" in outcome
      ) {
        expect(JSON.stringify(outcome.files)).not.toContain(Buffer.from(SECRET).toJSON().data.join(","));
        outcomes.add("collected");
      } else outcomes.add("refused");
      await workspace.remove().catch(() => outcomes.add("removed later"));
    }
    await planter.kill();
    expect(outcomes).toContain("refused");
    expect(await canaries.look()).toEqual(before);
  });
});

describe("what is read back of a run", () => {
  it("is never what a link, a hard link or a special file leads to, and a hidden file is not taken for deleted", async () => {
    const workspace = await handed.prepare(FILES);
    await workspace.enter();
    await handed.inside(
      `const fs = require("fs"), canary = process.env.CANARY;
       process.chdir("/area/request/work");
       const replace = (name, target) => { fs.rmSync(name, { recursive: true }); fs.symlinkSync(target, name); };
       replace("a.txt", canary + "/secret"); replace("dir", canary + "/dir"); replace(".gitignore", "/etc/passwd");
       fs.symlinkSync(canary, "canary"); fs.symlinkSync("canary/secret", "chained"); fs.symlinkSync("/proc/self/root", "root");
       fs.symlinkSync(canary + "/new", "dangling"); fs.mkdirSync("deep"); fs.symlinkSync("../canary", "deep/link");
       require("child_process").execFileSync("mkfifo", ["fifo"]); fs.writeFileSync("one", "1"); fs.linkSync("one", "two");
       fs.writeFileSync("new.txt", "new\\n"); fs.writeFileSync("x.log", "no rules are left");
       for (const name of ["outputs", "prompts", "pdfs", "temp"]) { fs.rmSync("../" + name, { recursive: true }); fs.symlinkSync(canary, "../" + name); }`,
      { CANARY: canaries.dir },
    );
    const { files, warnings } = await collected(workspace);
    expect(files.map(({ path, content }) => [path, content?.toString() ?? null])).toEqual([
      ["new.txt", "new\n"],
      ["x.log", "no rules are left"],
    ]);
    for (const name of ["a.txt", "dir", "canary", "chained", "fifo", "one", "two"]) {
      expect(warnings.join("\n")).toContain(`"${name}"`);
    }
    await workspace.remove();
    expect(await readdir(handed.place.requests)).toEqual([]);
    expect(await canaries.look()).toEqual(before);
  });

  it.each([
    ["work", `fs.renameSync("request/work", "aside"); fs.symlinkSync(canary, "request/work");`],
    ["request", `fs.renameSync("request", "aside"); fs.symlinkSync(canary, "request");`],
    ["nothing", `fs.renameSync("request", "aside");`],
    ["file", `fs.renameSync("request", "aside"); fs.writeFileSync("request", "x");`],
    [
      "fifo",
      `fs.renameSync("request", "aside"); require("child_process").execFileSync("mkfifo", ["request"]);`,
    ],
  ])("is refused when the directory itself was replaced: %s", async (_, script) => {
    const workspace = await handed.prepare(FILES);
    await workspace.enter();
    await handed.inside(`const fs = require("fs"), canary = process.env.CANARY; ${script}`, {
      CANARY: canaries.dir,
    });
    await expect(collected(workspace)).rejects.toMatchObject({ code: "RunFailed" });
    await workspace.remove();
    expect(await readdir(handed.place.requests)).toEqual([]);
    expect(await canaries.look()).toEqual(before);
    await slot.release();
    await expect(lstat(slot.dir)).rejects.toMatchObject({ code: "ENOENT" });
    expect(await canaries.look()).toEqual(before);
  });
});
