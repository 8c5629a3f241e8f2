import { createUser } from "#database/accounts/index.ts";
import { createProject } from "#database/projects/index.ts";
import { newId, readConfig } from "#platform";
import type { Slot } from "#sandbox";
import { type Outcome, runNode } from "#sandbox/testing/harness.ts";
import { collectChanges } from "#workspaces/collect.ts";
import { Workspace, type WorkspacePlace } from "#workspaces/workspace.ts";
import type { HostileDirectory } from "./canaries.ts";
import type { TestDatabase } from "./database.ts";

const LIMITS = { fileBytes: 100_000, projectFiles: 1000 };
let users = 0;

/** Where one slot's requests are worked on, as the orchestrator lays it out. */
export interface HandedPlace {
  readonly place: WorkspacePlace;
  /** A new project's workspace, prepared but not entered. */
  prepare(files: Record<string, string>): Promise<Workspace>;
  /** Run a CommonJS script with the area as /area, at its root. */
  inside(script: string, given?: Record<string, string>): Promise<Outcome>;
}

export async function openPlace(
  test: TestDatabase,
  hostile: HostileDirectory,
  slot: Slot,
): Promise<HandedPlace> {
  const { uid, gid } = slot;
  const place: WorkspacePlace = {
    requests: await slot.makeDir("requests"),
    area: await slot.makeDir("area"),
    owner: uid === null || gid === null ? null : { uid, gid },
  };
  const mounts = [{ source: place.area, target: "/area", mode: "rw" as const }];
  users += 1;
  const account = {
    username: `user${users}`,
    password_hash: "-",
    role: "developer",
    initial_balance: 0,
  } as const;
  const { id: owner_id } = await createUser(test.database.db, account);
  return {
    place,
    async prepare(files) {
      const start = {
        author: account.username,
        summary: "start",
        files: Object.entries(files).map(([path, content]) => ({ path, content: Buffer.from(content) })),
      };
      const { quota } = readConfig({});
      const project = await createProject(test.database, { owner_id, name: newId("task"), quota, start });
      const request = { id: newId("task"), project_id: project.id, prompt: "work" };
      return Workspace.prepare(test.database.db, place, request);
    },
    async inside(script, given = {}) {
      const outcome = await runNode(hostile.opened.sandboxes, script, {
        slot,
        mounts,
        cwd: "/area",
        env: given,
      });
      if (outcome.code !== 0) throw new Error(`the attack itself failed: ${JSON.stringify(outcome)}`);
      return outcome;
    },
  };
}

/** Take the workspace back and read what was made of it. */
export async function collected(workspace: Workspace) {
  await workspace.leave();
  return collectChanges(workspace, LIMITS);
}
