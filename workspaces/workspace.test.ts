import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createUser } from "#database/accounts/index.ts";
import { createProject } from "#database/projects/index.ts";
import { newId, readConfig } from "#platform";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { collectChanges } from "./collect.ts";
import { Workspace, type WorkspacePlace } from "./workspace.ts";

const { quota } = readConfig({});
const limits = { fileBytes: 1000, projectFiles: 100 };
let test: TestDatabase;
let dir: string;
let userId: string;

beforeAll(async () => {
  test = await testDatabase();
  dir = await mkdtemp(join(tmpdir(), "cds-workspace-"));
  const account = { username: "ada", password_hash: "-", role: "developer", initial_balance: 0 } as const;
  userId = (await createUser(test.database.db, account)).id;
});
afterAll(async () => {
  await test[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

/** A workspace the agent has; `work` is where it works. */
async function entered(files: Record<string, string>) {
  const root = await mkdtemp(join(dir, "slot-"));
  const place: WorkspacePlace = { requests: join(root, "requests"), area: join(root, "area"), owner: null };
  await mkdir(place.requests);
  await mkdir(place.area);
  const start = {
    author: "ada",
    summary: "start",
    files: Object.entries(files).map(([path, content]) => ({ path, content: Buffer.from(content) })),
  };
  const project = await createProject(test.database, { owner_id: userId, name: "p", quota, start });
  const request = { id: newId("task"), project_id: project.id, prompt: "Tu das, bitte: ä" };
  const workspace = await Workspace.prepare(test.database.db, place, request);
  await workspace.enter();
  return { workspace, place, request, work: join(place.area, "request", "work") };
}

async function collected(workspace: Workspace) {
  await workspace.leave();
  const { files, warnings, ...rest } = await collectChanges(workspace, limits);
  const changes = files.map(({ path, content, executable }) => [
    path,
    content?.toString() ?? null,
    executable,
  ]);
  return { changes, warnings, ...rest };
}

describe("a request's workspace", () => {
  it("[MU-2] holds the project in a directory of the request's own, and goes without a trace", async () => {
    const { workspace, place, request, work } = await entered({ "a.txt": "a\n", "deep/er/b.txt": "b\n" });
    expect(await readFile(join(work, "deep/er/b.txt"), "utf8")).toBe("b\n");
    expect(await readFile(join(work, "../prompts/prompt.md"), "utf8")).toBe(request.prompt);
    expect((await readdir(join(work, ".."))).sort()).toEqual(["outputs", "pdfs", "prompts", "temp", "work"]);
    expect(await readdir(place.requests)).toEqual([]);
    expect(await collected(workspace)).toEqual({
      changes: [],
      warnings: [],
      unchanged: expect.any(Array),
      agentConfiguration: false,
    });
    expect(await readdir(place.requests)).toEqual([request.id]);
    await workspace.remove();
    expect(await readdir(place.requests)).toEqual([]);
    expect(await readdir(place.area)).toEqual([]);
  });

  it("is removed also while the agent has it", async () => {
    const { workspace, place } = await entered({ "a.txt": "a\n" });
    await writeFile(join(place.area, "opencode.json"), "left above the request");
    await workspace.remove();
    expect(await readdir(place.area)).toEqual([]);
  });

  it("sees additions, changes, deletions and the executable bit, and nothing that only looks touched", async () => {
    const { workspace, work } = await entered({
      "a.txt": "a\n",
      "b.txt": "b\n",
      "c.sh": "c\n",
      "d/e.txt": "e\n",
    });
    await writeFile(join(work, "a.txt"), "A\n");
    await rm(join(work, "b.txt"));
    await chmod(join(work, "c.sh"), 0o755);
    await writeFile(join(work, "d/e.txt"), "e\n");
    await mkdir(join(work, "new"));
    await writeFile(join(work, "new/f.txt"), "f\n");
    const { changes } = await collected(workspace);
    expect(changes).toEqual([
      ["a.txt", "A\n", false],
      ["b.txt", null, false],
      ["c.sh", "c\n", true],
      ["new/f.txt", "f\n", false],
    ]);
  });

  it("turns a file into a directory and back", async () => {
    const { workspace, work } = await entered({ a: "file\n", "b/c": "inside\n" });
    await rm(join(work, "a"));
    await mkdir(join(work, "a"));
    await writeFile(join(work, "a/x"), "x");
    await rm(join(work, "b"), { recursive: true });
    await writeFile(join(work, "b"), "now a file");
    expect((await collected(workspace)).changes).toEqual([
      ["a", null, false],
      ["a/x", "x", false],
      ["b", "now a file", false],
      ["b/c", null, false],
    ]);
  });

  it("skips what is ignored or never kept, but not what the project has there", async () => {
    const files = { ".gitignore": "/dist\n*.log\n", "node_modules/own.js": "1\n", "kept.log": "old\n" };
    const { workspace, work } = await entered(files);
    for (const path of ["dist", "__pycache__", "node_modules/dep"]) {
      await mkdir(join(work, path), { recursive: true });
      await writeFile(join(work, path, "file"), "x");
    }
    await writeFile(join(work, "debug.log"), "x");
    await writeFile(join(work, "kept.log"), "new\n");
    await writeFile(join(work, "node_modules/own.js"), "2\n");
    const paths = (await collected(workspace)).changes.map(([path]) => path);
    expect(paths).toEqual(["kept.log", "node_modules/dep/file", "node_modules/own.js"]);
  });

  it("keeps agents' configuration from the agent and out of its result, without losing it", async () => {
    const { workspace, work } = await entered({
      ".opencode/plugin/p.js": "p",
      "opencode.json": "{}",
      "AGENTS.md": "x",
    });
    expect(await readdir(work)).toEqual(["AGENTS.md"]);
    await writeFile(join(work, "opencode.json"), '{"evil":true}');
    const result = await collected(workspace);
    expect(result.changes).toEqual([]);
    expect(result.agentConfiguration).toBe(true);
    expect(result.warnings.join()).toContain("opencode.json");
  });

  it("says what it leaves out: links, too large, impossible names; a file hidden by a link is not deleted", async () => {
    const { workspace, work } = await entered({ "a.txt": "a\n", "dir/b.txt": "b\n" });
    await rm(join(work, "a.txt"));
    await symlink("/etc/passwd", join(work, "a.txt"));
    await rename(join(work, "dir"), join(work, "moved"));
    await symlink("/etc", join(work, "dir"));
    await writeFile(join(work, "large.bin"), Buffer.alloc(2000));
    await writeFile(join(work, "bad\nname"), "x");
    await writeFile(join(work, "ends in dot.git"), "fine");
    const { changes, warnings } = await collected(workspace);
    expect(changes).toEqual([
      ["ends in dot.git", "fine", false],
      ["moved/b.txt", "b\n", false],
    ]);
    for (const name of ["a.txt", "dir", "large.bin", "bad\\nname"])
      expect(warnings.join("\n")).toContain(`"${name}"`);
  });

  it("refuses more than anybody reviews", async () => {
    const { workspace, work } = await entered({});
    for (let index = 0; index <= 100; index += 1) await writeFile(join(work, `f${index}`), "x");
    await expect(collected(workspace)).rejects.toMatchObject({ code: "QuotaExceeded" });
  });

  it("cannot be led out by a directory that was moved away", async () => {
    const { workspace, place } = await entered({ "a.txt": "a\n" });
    await rename(join(place.area, "request"), join(place.area, "gone"));
    await symlink("/etc", join(place.area, "request"));
    await expect(collected(workspace)).rejects.toMatchObject({ code: "RunFailed" });
    await workspace.remove();
    expect((await stat("/etc")).isDirectory()).toBe(true);
    const other = await entered({ "a.txt": "a\n" });
    await rm(join(other.place.area, "request"), { recursive: true });
    await expect(collected(other.workspace)).rejects.toMatchObject({ code: "RunFailed" });
  });
});
