import { readdir } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { getProject, putBlobs, readTree } from "#database/projects/index.ts";
import type { Delta } from "#database/projects/types.ts";
import { readConfig } from "#platform";
import type { Slot } from "#sandbox";
import { openForTest, type TestSandboxes } from "#sandbox/testing/harness.ts";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { type Files, TestProject } from "#tests/support/projects.ts";
import { CheckTrees, checksPlace } from "./checks.ts";

let test: TestDatabase;
let opened: TestSandboxes;
beforeAll(async () => {
  test = await testDatabase();
  opened = await openForTest();
});
afterAll(async () => {
  await opened?.[Symbol.asyncDispose]();
  await test?.[Symbol.asyncDispose]();
});

async function deltas(changes: Record<string, string | null>): Promise<Delta[]> {
  return await Promise.all(
    Object.entries(changes).map(async ([path, text]) => {
      if (text === null) return { path, to: null };
      const content = Buffer.from(text);
      const [blob_hash] = await putBlobs(test.database.db, [content]);
      if (blob_hash === undefined) throw new Error("not stored");
      return { path, to: { blob_hash, size: content.length, executable: false } };
    }),
  );
}

/** A project with `files`, and what `changes` make of it, in a slot that is given back afterwards. */
async function trying(
  files: Files,
  changes: Record<string, string | null>,
  act: (trees: CheckTrees, slot: Slot, stop: AbortController) => Promise<void>,
  env: Record<string, string> = {},
): Promise<void> {
  const project = await TestProject.make(test.database, files);
  const { head_revision } = await getProject(test.database.db, project.id);
  const tree = await readTree(test.database.db, project.id, head_revision);
  const { sandboxes } = opened;
  const slot = await sandboxes.slots.acquire();
  const stop = new AbortController();
  const bench = { host: sandboxes, slot, signal: stop.signal };
  const place = checksPlace(test.database.db, readConfig({ CDS_DISK_THRESHOLD: "0.99", ...env }), bench);
  try {
    await using trees = new CheckTrees(place, tree, await deltas(changes), head_revision);
    await act(trees, slot, stop);
  } finally {
    await slot.release();
  }
}

const text = (bytes: Uint8Array | null) => (bytes === null ? null : new TextDecoder().decode(bytes));

describe("trees to try things on", () => {
  const files = { "a.txt": "eins\n", "sub/b.txt": "zwei\n", "weg.txt": "x" };
  const changes = { "a.txt": "drei\n", "neu/ä.txt": "vier\n", "weg.txt": null };

  it("[AG-1] show the project before and after, and as it was but for some paths", async () => {
    await trying(files, changes, async (trees) => {
      expect(await trees.before.list()).toEqual(["a.txt", "sub/b.txt", "weg.txt"]);
      expect(await trees.after.list()).toEqual(["a.txt", "neu/ä.txt", "sub/b.txt"]);
      expect(text(await trees.before.read("a.txt"))).toBe("eins\n");
      expect(text(await trees.after.read("a.txt"))).toBe("drei\n");
      expect(await trees.after.read("weg.txt")).toBeNull();
      const some = trees.overlay(["neu/ä.txt", "weg.txt", "nowhere"]);
      expect((await some.run("cat a.txt neu/*; ls")).output).toBe("eins\nvier\na.txt\nneu\nsub\n");
    });
  });

  it("run commands in copies of their own, and keep none", async () => {
    await trying(files, changes, async (trees, slot) => {
      const before = await readdir(slot.dir);
      const [was, is] = [trees.before, trees.after];
      expect(await was.run("cat a.txt; echo tief >&2; exit 3")).toEqual({
        code: 3,
        output: "eins\ntief\n",
        timedOut: false,
      });
      // What one command writes the next one sees, on the same tree only.
      await is.run("echo mine > made.txt");
      expect((await is.run("cat a.txt made.txt")).output).toBe("drei\nmine\n");
      expect((await was.run("cat made.txt")).code).not.toBe(0);
      expect((await is.run("node -p 'process.version'")).output).toBe(`${process.version}\n`);
      expect(text(await is.read("made.txt"))).toBeNull();
      await trees[Symbol.asyncDispose]();
      expect(await readdir(slot.dir)).toEqual(before);
    });
  });

  it("have no network, no other user's files and no time without end", async () => {
    await trying(
      files,
      changes,
      async (trees) => {
        const reach = await trees.after.run(
          "node -e 'require(`net`).connect(80, `192.0.2.1`).on(`error`, (e) => console.log(e.code))'",
        );
        expect(reach.output).toMatch(/ENETUNREACH|EACCES|EPERM/);
        expect((await trees.after.run("ls /root /home/agent 2>&1; echo $HOME")).output).toContain("/tmp");
        expect(await trees.after.run("echo so far; sleep 600", { timeoutMs: 300 })).toMatchObject({
          output: "so far\n",
          timedOut: true,
        });
      },
      { CDS_CHECK_TIMEOUT_MS: "60000" },
    );
  });

  it("end with the run they belong to", async () => {
    await trying(files, changes, async (trees, _slot, stop) => {
      const running = trees.after.run("echo begun; sleep 600");
      setTimeout(() => stop.abort(new Error("enough")), 300);
      await expect(running).rejects.toThrow("enough");
      await expect(trees.after.run("true")).rejects.toThrow("enough");
    });
  });
});
