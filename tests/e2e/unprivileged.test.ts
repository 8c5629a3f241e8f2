import { chownSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { ensureUiBuilt } from "#apps/studio-ui/build.ts";
import { enterable } from "#platform/host/enterable.ts";
import { sandboxedProcesses } from "../support/leftovers.ts";
import { startServer, stopServer } from "../support/server-process.ts";
import { ADMIN, signIn } from "../support/studio.ts";
import { dispatch, ended } from "../support/tasks.ts";

/** "nobody": a user with no rights at all, who exists everywhere. */
const NOBODY = { uid: 65_534, gid: 65_534 };
const asRoot = process.getuid?.() === 0;
const reachable = enterable(process.cwd(), NOBODY) && enterable(process.execPath, NOBODY);

/** When the tests run as an ordinary user every other suite shows this already. */
it.skipIf(!asRoot || !reachable)(
  "[TE-2] the whole way works for a server without any rights, and Ctrl+C leaves nothing behind",
  async () => {
    const dataDir = await mkdtemp(join(tmpdir(), "cds-nobody-"));
    chownSync(dataDir, NOBODY.uid, NOBODY.gid);
    // The page is built by whoever owns the clone.
    await ensureUiBuilt();
    const server = await startServer(dataDir, {}, NOBODY);
    try {
      const admin = await signIn(server.url, ADMIN.username, ADMIN.password, "login");
      const { taskId, projectId } = await dispatch(admin, {
        template: "sample",
        model: "demo",
        prompt: "Add a farewell function with a test",
      });
      const task = await ended(admin, taskId);
      expect(task.error).toBeUndefined();
      expect(task.state).toBe("completed");
      const accepted = await admin.client.call("change.accept", { change_id: task.change_id ?? "" });
      expect(accepted.revision).toBe(2);
      const { content } = await admin.client.call("fs.read", {
        project_id: projectId,
        path: "src/farewell.js",
      });
      expect(content).toContain("export");
    } finally {
      expect(await stopServer(server, "SIGINT")).toBe(0);
      await rm(dataDir, { recursive: true, force: true });
    }
    expect(sandboxedProcesses(dataDir)).toEqual([]);
  },
  180_000,
);
