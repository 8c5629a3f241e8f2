import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeTemporary, openForTest, run, specFor, type TestSandboxes } from "../../testing/harness.ts";
import { languages } from "./languages.ts";
import { nodeMounts, withNode } from "./node-mounts.ts";

let opened: TestSandboxes;
beforeAll(async () => {
  opened = await openForTest();
});
afterAll(() => opened?.[Symbol.asyncDispose]());

describe("[SB-run] what programs can use", () => {
  it("is found out in a sandbox, once", async () => {
    const found = await languages(opened.sandboxes);
    const node = { name: "node", version: process.versions.node, path: "/opt/node/bin/node" };
    expect(found).toContainEqual(node);
    expect(found).toContainEqual(
      expect.objectContaining({ name: "bash", version: expect.stringMatching(/^\d+\./) }),
    );
    for (const { version, path } of found)
      expect([version, path]).toEqual([expect.stringMatching(/\d/), expect.stringMatching(/^\//)]);
    expect(await languages(opened.sandboxes)).toBe(found);
  });

  it("is asked for again after a failure", async () => {
    const { start, slots } = opened.sandboxes;
    let starts = 0;
    const host = {
      slots,
      reachable: opened.sandboxes.reachable.bind(opened.sandboxes),
      start: (spec: Parameters<typeof start>[0]) => {
        starts += 1;
        if (starts === 1) return Promise.reject(new Error("not now"));
        return opened.sandboxes.start(spec);
      },
    };
    await expect(languages(host)).rejects.toThrow("not now");
    expect(await languages(host)).toContainEqual(expect.objectContaining({ name: "node" }));
  });

  it("has the server's Node before any other, and its npm where it lies beside", async () => {
    const dir = await makeTemporary();
    const npm = join(dir, "lib/node_modules/npm");
    await mkdir(join(npm, "bin"), { recursive: true });
    await mkdir(join(dir, "bin"));
    for (const name of ["npm", "npx"]) {
      await writeFile(join(npm, `bin/${name}-cli.js`), `console.log("${name}", ...process.argv.slice(2))`);
    }
    expect(nodeMounts(join(dir, "bin/node")).map(({ target }) => target)).toEqual([
      "/opt/node/bin/node",
      "/opt/node/lib/node_modules/npm",
      "/opt/node/bin/npm",
      "/opt/node/bin/npx",
    ]);
    const slot = await opened.sandboxes.slots.acquire();
    const script = "command -v node; npm 'a b'; npx c; echo $PATH";
    const { env, mounts } = withNode(
      specFor(slot, [], { env: { PATH: "/usr/bin:/bin" } }),
      join(dir, "bin/node"),
    );
    const own = mounts.map((mount) =>
      mount.target === "/opt/node/bin/node" ? { ...mount, source: process.execPath } : mount,
    );
    const { stdout } = await run(opened.sandboxes, ["sh", "-c", script], { slot, env, mounts: own });
    expect(stdout).toBe("/opt/node/bin/node\nnpm a b\nnpx c\n/opt/node/bin:/usr/bin:/bin\n");
    await slot.release();
    await rm(dir, { recursive: true });
  });
});
