import { chmod, mkdir, readFile, rm, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createUser } from "#database/accounts/index.ts";
import {
  commitEdits,
  createProject,
  deleteProject,
  getChange,
  previewChange,
  readFile as readProjectFile,
  readTree,
} from "#database/projects/index.ts";
import { createLogger, newId, readConfig } from "#platform";
import { openForTest, type TestSandboxes } from "#sandbox/testing/harness.ts";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import type { LiveWorkspace } from "./live-workspace.ts";
import { LiveWorkspaces } from "./live-workspaces.ts";

const quota = { ...readConfig({}).quota, fileBytes: 100_000, projectBytes: 1_000_000 };
const owner = { user_id: "", username: "ada" };
const never = new AbortController().signal;
let test: TestDatabase;
let opened: TestSandboxes;
let workspaces: LiveWorkspaces;

beforeAll(async () => {
  test = await testDatabase();
  opened = await openForTest();
  const account = { username: "ada", password_hash: "-", role: "developer", initial_balance: 0 } as const;
  owner.user_id = (await createUser(test.database.db, account)).id;
  workspaces = open(8);
});
afterAll(async () => {
  await workspaces.close();
  await opened[Symbol.asyncDispose]();
  await test[Symbol.asyncDispose]();
});

function open(max: number): LiveWorkspaces {
  const { database } = test;
  const log = createLogger({ level: "silent", pretty: false });
  return new LiveWorkspaces({ database, sandboxes: opened.sandboxes, quota, log, max });
}

/** A project with these files, and its workspace in use. */
async function using_(files: Record<string, string>) {
  const edits = Object.entries(files).map(([path, content]) => ({ path, content: Buffer.from(content) }));
  const project = { owner_id: owner.user_id, name: newId("project"), quota };
  const { id } = await createProject(test.database, project);
  if (edits.length > 0) await others(id, files);
  const use = await workspaces.use(owner, id, never);
  return { id, use, workspace: use.workspace };
}

/** What somebody else commits meanwhile; null deletes. */
async function others(project_id: string, files: Record<string, string | null>): Promise<number> {
  const edits = Object.entries(files).map(([path, content]) => ({
    path,
    content: content === null ? null : Buffer.from(content),
  }));
  const commit = { project_id, author: "bob", kind: "edit", summary: "Edit", quota, edits } as const;
  return (await commitEdits(test.database, commit)).revision;
}

const onDisk = (workspace: LiveWorkspace, path: string) => readFile(join(workspace.work, path), "utf8");
const put = async (workspace: LiveWorkspace, path: string, content: string) => {
  await mkdir(join(workspace.work, path, ".."), { recursive: true });
  await writeFile(join(workspace.work, path), content);
};
const stored = async (id: string, path: string) =>
  (await readProjectFile(test.database.db, id, path)).content.toString("utf8");
const paths = async (id: string) => (await readTree(test.database.db, id)).map((file) => file.path);

describe("a live workspace", () => {
  it("has the project's files, and makes one revision of all that programs changed", async () => {
    const { id, use, workspace } = await using_({ "a.txt": "alt\n", "lib/b.sh": "b\n", "c.txt": "c\n" });
    expect(await onDisk(workspace, "lib/b.sh")).toBe("b\n");
    await put(workspace, "a.txt", "grün\n");
    await put(workspace, "neu/ä.txt", "neu\n");
    await chmod(join(workspace.work, "lib/b.sh"), 0o755);
    await rm(join(workspace.work, "c.txt"));
    expect(await use.flush("npm test")).toEqual({ revision: 2, warnings: [] });
    expect(await paths(id)).toEqual(["a.txt", "lib/b.sh", "neu/ä.txt"]);
    expect(await stored(id, "a.txt")).toBe("grün\n");
    expect((await readTree(test.database.db, id)).find((file) => file.path === "lib/b.sh")?.executable).toBe(
      true,
    );
    expect(await use.flush("again")).toEqual({ warnings: [] });
    use.release();
  });

  it("keeps installed packages on disk from one use to the next, and out of the project", async () => {
    const { id, use, workspace } = await using_({ "package.json": "{}\n" });
    await put(workspace, "node_modules/left/index.js", "1\n");
    expect(await use.flush("npm install")).toEqual({ warnings: [] });
    use.release();
    const again = await workspaces.use(owner, id, never);
    expect(again.workspace).toBe(workspace);
    expect(await onDisk(workspace, "node_modules/left/index.js")).toBe("1\n");
    again.release();
  });

  it("brings what others did, also to files deleted or new, when it is used again", async () => {
    const { id, use, workspace } = await using_({ "a.txt": "1\n", "b.txt": "1\n" });
    use.release();
    await others(id, { "a.txt": "2\n", "b.txt": null, "c/d.txt": "neu\n" });
    (await workspaces.use(owner, id, never)).release();
    expect(await onDisk(workspace, "a.txt")).toBe("2\n");
    expect(await onDisk(workspace, "c/d.txt")).toBe("neu\n");
    await expect(stat(join(workspace.work, "b.txt"))).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("merges both sides of a file changed here and there", async () => {
    const text = (first: string, last: string) => `${first}\n2\n3\n4\n5\n6\n${last}\n`;
    const { id, use, workspace } = await using_({ "a.txt": text("1", "7") });
    await put(workspace, "a.txt", text("eins", "7"));
    await others(id, { "a.txt": text("1", "sieben"), "b.txt": "b\n" });
    await workspace.refresh();
    // The program's version is not lost before it is kept, whatever else arrives.
    expect(await onDisk(workspace, "a.txt")).toBe(text("eins", "7"));
    expect(await onDisk(workspace, "b.txt")).toBe("b\n");
    expect(await use.flush("sed")).toMatchObject({ revision: 3 });
    expect(await stored(id, "a.txt")).toBe(text("eins", "sieben"));
    expect(await onDisk(workspace, "a.txt")).toBe(text("eins", "sieben"));
    use.release();
  });

  it("makes a change to review of what collides, whole, and takes the project's side on disk", async () => {
    const { id, use, workspace } = await using_({ "a.txt": "1\n", "gone.txt": "x\n" });
    await put(workspace, "a.txt", "hier\n");
    await put(workspace, "new.txt", "neu\n");
    await put(workspace, "gone.txt", "changed\n");
    await others(id, { "a.txt": "dort\n", "gone.txt": null });
    const { change_id, revision } = await use.flush("make");
    expect(revision).toBeUndefined();
    const preview = await previewChange(test.database.db, await getChange(test.database.db, change_id ?? ""));
    expect(preview.files.map((file) => file.path)).toEqual(["a.txt", "gone.txt", "new.txt"]);
    expect(preview.conflicts.map(({ path, kind }) => [path, kind])).toEqual([
      ["a.txt", "content"],
      ["gone.txt", "delete_modify"],
    ]);
    expect(await onDisk(workspace, "a.txt")).toBe("dort\n");
    for (const path of ["new.txt", "gone.txt"]) {
      await expect(stat(join(workspace.work, path))).rejects.toMatchObject({ code: "ENOENT" });
    }
    expect(await use.flush("again")).toEqual({ warnings: [] });
    use.release();
  });

  it("never takes a program's new file for the one the project has got under that name", async () => {
    const { id, use, workspace } = await using_({});
    await put(workspace, "same.txt", "hier\n");
    await others(id, { "same.txt": "dort\n" });
    await workspace.refresh();
    await workspace.refresh();
    expect(await onDisk(workspace, "same.txt")).toBe("hier\n");
    expect(await use.flush("touch")).toHaveProperty("change_id");
    expect(await stored(id, "same.txt")).toBe("dort\n");
    use.release();
  });

  it("a deletion here of what was changed there is put to review, not done", async () => {
    const { id, use, workspace } = await using_({ "a.txt": "1\n" });
    await rm(join(workspace.work, "a.txt"));
    await others(id, { "a.txt": "2\n" });
    await workspace.refresh();
    await expect(stat(join(workspace.work, "a.txt"))).rejects.toMatchObject({ code: "ENOENT" });
    expect(await use.flush("rm")).toHaveProperty("change_id");
    expect(await stored(id, "a.txt")).toBe("2\n");
    expect(await onDisk(workspace, "a.txt")).toBe("2\n");
    use.release();
  });

  it("sees a change right after the last one, of the same length, and one with a forged time", async () => {
    const { id, use, workspace } = await using_({ "a.txt": "0000\n" });
    for (let round = 1; round <= 20; round += 1) {
      const content = `${String(round).padStart(4, "0")}\n`;
      await put(workspace, "a.txt", content);
      await utimes(join(workspace.work, "a.txt"), 1, 1);
      await use.flush("write");
      expect(await stored(id, "a.txt")).toBe(content);
    }
    use.release();
  });

  it("follows no link and stops at no obstacle that programs put where the project's files go", async () => {
    const { id, use, workspace } = await using_({ "a.txt": "1\n", "dir/b.txt": "b\n" });
    const outside = join(opened.dataDir, "outside");
    await mkdir(outside, { recursive: true });
    await writeFile(join(outside, "b.txt"), "canary\n");
    await rm(join(workspace.work, "dir"), { recursive: true });
    await symlink(outside, join(workspace.work, "dir"));
    await rm(join(workspace.work, "a.txt"));
    await mkdir(join(workspace.work, "a.txt"));
    await others(id, { "a.txt": "2\n", "dir/b.txt": "neu\n", "c.txt": "c\n" });
    await workspace.refresh();
    expect(await onDisk(workspace, "c.txt")).toBe("c\n");
    expect(await readFile(join(outside, "b.txt"), "utf8")).toBe("canary\n");
    const { warnings } = await use.flush("ln");
    expect(warnings.join()).toContain("dir");
    expect(await stored(id, "dir/b.txt")).toBe("neu\n");
    use.release();
  });

  it("says what is too much, and keeps it on disk", async () => {
    const { id, use, workspace } = await using_({});
    await put(workspace, "big.txt", "x".repeat(200_000));
    for (let index = 0; index < 12; index += 1)
      await put(workspace, `${index}.txt`, String(index % 10).repeat(90_000));
    const { warnings } = await use.flush("dd");
    expect(warnings.join("\n")).toMatch(/not saved: .*the limit per project/);
    expect(await paths(id)).toEqual([]);
    expect((await onDisk(workspace, "0.txt")).length).toBe(90_000);
    use.release();
    // Nor does whoever makes room take it away; once there is room in the project, it is kept and goes.
    const idle = async () => (await workspaces.idle()).find((each) => each.project_id === id);
    expect(await (await idle())?.remove()).toBe(false);
    for (const name of ["1", "2", "3", "4"]) await rm(join(workspace.work, `${name}.txt`));
    expect(await (await idle())?.remove()).toBe(true);
    expect((await stored(id, "0.txt")).length).toBe(90_000);
  });

  it("is NotFound once its project is gone, and leaves the disk", async () => {
    const { id, use, workspace } = await using_({ "a.txt": "1\n" });
    await deleteProject(test.database.db, id);
    await put(workspace, "a.txt", "2\n");
    expect((await use.flush("x")).warnings.join()).toContain("not saved");
    await expect(workspaces.use(owner, id, never)).rejects.toMatchObject({ code: "NotFound" });
    await workspaces.drop(id);
    await expect(stat(workspace.slot.dir)).rejects.toMatchObject({ code: "ENOENT" });
    await expect(workspace.flush("x")).rejects.toMatchObject({ code: "Unavailable" });
    use.release();
  });
});

describe("changes to review", () => {
  it("are bounded like the project they wait for", async () => {
    const { id, use, workspace } = await using_({ "a.txt": "1\n" });
    const collide = async (round: number) => {
      await put(workspace, "a.txt", `hier ${round}\n`);
      for (let index = 0; index < 4; index += 1) {
        await put(workspace, `${round}-${index}.txt`, String(round % 10).repeat(99_000));
      }
      await others(id, { "a.txt": `dort ${round}\n` });
      return use.flush("make");
    };
    expect(await collide(1)).toHaveProperty("change_id");
    expect(await collide(2)).toHaveProperty("change_id");
    const third = await collide(3);
    expect(third).not.toHaveProperty("change_id");
    expect(third.warnings.join()).toContain("waits for review");
    expect(await onDisk(workspace, "a.txt")).toBe("hier 3\n");
    use.release();
  });
});

describe("the workspaces of a process", () => {
  it("make room by the longest unused one, keeping what it held; refuse when all are in use", async () => {
    await using small = { pool: open(2), [Symbol.asyncDispose]: () => small.pool.close() };
    const project = async () => {
      const made = { owner_id: owner.user_id, name: newId("project"), quota };
      return (await createProject(test.database, made)).id;
    };
    const [one, two, three] = [await project(), await project(), await project()];
    const first = await small.pool.use(owner, one, never);
    const second = await small.pool.use(owner, two, never);
    await expect(small.pool.use(owner, three, never)).rejects.toMatchObject({ code: "QuotaExceeded" });
    await put(first.workspace, "kept.txt", "noch\n");
    first.release();
    first.release();
    expect((await small.pool.idle()).map((idle) => idle.project_id)).toEqual([one]);
    (await small.pool.use(owner, three, never)).release();
    await expect.poll(() => stored(one, "kept.txt").catch(() => "")).toBe("noch\n");
    await expect.poll(() => stat(first.workspace.slot.dir).catch(() => null)).toBeNull();
    second.release();
    const idle = await small.pool.idle();
    expect(idle.map((each) => each.project_id)).toEqual([three, two]);
    const held = await small.pool.use(owner, two, never);
    expect(await idle[1]?.remove()).toBe(false);
    held.release();
    expect(await idle[0]?.remove()).toBe(true);
    expect(await idle[0]?.remove()).toBe(false);
    expect(small.pool.size).toBe(1);
  });

  it("one that is being made is made for whoever still waits for it", async () => {
    await using few = await openForTest({ slots: 1 });
    const log = createLogger({ level: "silent", pretty: false });
    const own = new LiveWorkspaces({ database: test.database, sandboxes: few.sandboxes, quota, log, max: 8 });
    const project = { owner_id: owner.user_id, name: newId("project"), quota };
    const { id } = await createProject(test.database, project);
    const taken = await few.sandboxes.slots.acquire();
    const [leaves, alone] = [new AbortController(), new AbortController()];
    const first = own.use(owner, id, leaves.signal);
    const second = own.use(owner, id, never);
    leaves.abort();
    await expect(first).rejects.toMatchObject({ code: "Cancelled" });
    await taken.release();
    const use = await second;
    use.release();
    await own.drop(id);
    // With nobody left it is not made at all.
    const again = await few.sandboxes.slots.acquire();
    const last = own.use(owner, id, alone.signal);
    alone.abort();
    await expect(last).rejects.toMatchObject({ code: "Cancelled" });
    expect(own.size).toBe(0);
    await again.release();
    await own.close();
  });

  it("a workspace that could not be made is tried anew, and nothing is made after close", async () => {
    const pool = open(2);
    await expect(pool.use(owner, "prj_none", never)).rejects.toMatchObject({ code: "NotFound" });
    expect(pool.size).toBe(0);
    await pool.close();
    await expect(pool.use(owner, "prj_none", never)).rejects.toMatchObject({ code: "Unavailable" });
  });
});
