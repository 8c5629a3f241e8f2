import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { whyNoMachines } from "#sandbox/testing/machines.ts";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";

const why = whyNoMachines();
let server: ApiServer;
let ada: ApiUser;

beforeAll(async () => {
  server = await apiServer({ CDS_VM_PER_USER: "2", CDS_VM_SNAPSHOTS_PER_USER: "1" });
  ada = await server.user("ada");
});
afterAll(() => server[Symbol.asyncDispose]());

const run = (vm_id: string, code: string, more = {}) =>
  ada.client.call("micro.execute", { vm_id, code, ...more }, SLOW);
/** Where every instruction is translated, and the machine is busy with other tests. */
const SLOW = { timeoutMs: 240_000 };

describe.skipIf(why !== undefined)(`micro.* ${why ?? ""}`, () => {
  it("[SB-micro] starts, executes, keeps files but no variables, and stops", {
    timeout: 300_000,
  }, async () => {
    const started = await ada.client.call(
      "micro.start",
      {
        image: "node",
        script: "globalThis.x = 1; require('fs').writeFileSync('f', 'Grüße'); console.log(6 * 7)",
      },
      SLOW,
    );
    expect(started).toMatchObject({ stdout: "42\n", stderr: "", exit_code: 0, truncated: false });
    const { vm_id } = started;
    const script = "console.log(require('fs').readFileSync('f', 'utf8'), typeof x); process.exit(3)";
    expect(await run(vm_id, script)).toMatchObject({ stdout: "Grüße undefined\n", exit_code: 3 });
    const network = "fetch('http://192.0.2.1').catch((e) => console.log(e.cause.code))";
    expect((await run(vm_id, network)).stdout).toBe("ENETUNREACH\n");
    const { machines } = await ada.client.call("micro.list", {});
    expect(machines).toMatchObject([{ vm_id, image: "node" }]);
    expect(await ada.client.call("micro.stop", { vm_id }, SLOW)).toEqual({ vm_id, stopped: true });
    await expect(run(vm_id, "1")).rejects.toMatchObject({ code: "NotFound" });
  });

  it("[SB-micro] snapshots, restores, and forgets; nobody else's", { timeout: 300_000 }, async () => {
    const { vm_id } = await ada.client.call("micro.start", { image: "python" }, SLOW);
    await run(vm_id, "open('kept', 'w').write('hier')");
    const { snapshot_id } = await ada.client.call("micro.snapshot", { vm_id }, SLOW);
    await expect(ada.client.call("micro.snapshot", { vm_id }, SLOW)).rejects.toMatchObject({
      code: "QuotaExceeded",
    });
    await run(vm_id, "open('kept', 'w').write('dort')");
    const restored = (await ada.client.call("micro.restore", { snapshot_id }, SLOW)).vm_id;
    const script = "import uuid; print(open('kept').read()); print(uuid.uuid4())";
    const [kept, own] = (await run(restored, script)).stdout.split("\n");
    expect(kept).toBe("hier");
    expect((await run(vm_id, script)).stdout.split("\n")[1]).not.toBe(own);
    await expect(ada.client.call("micro.start", { image: "node" })).rejects.toMatchObject({
      code: "QuotaExceeded",
    });
    const bob = await server.user("bob");
    for (const refused of [
      () => bob.client.call("micro.restore", { snapshot_id }),
      () => bob.client.call("micro.forget", { snapshot_id }),
      () => bob.client.call("micro.execute", { vm_id, code: "1" }),
      () => bob.client.call("micro.stop", { vm_id }),
    ]) {
      await expect(refused()).rejects.toMatchObject({ code: "NotFound" });
    }
    expect(await bob.client.call("micro.list", {})).toEqual({ machines: [], snapshots: [] });
    expect((await ada.client.call("micro.list", {})).snapshots).toMatchObject([
      { snapshot_id, image: "python" },
    ]);
    await ada.client.call("micro.forget", { snapshot_id });
    expect((await ada.client.call("micro.list", {})).snapshots).toEqual([]);
    await ada.client.call("micro.stop", { vm_id }, SLOW);
    await ada.client.call("micro.stop", { vm_id: restored }, SLOW);
  });

  it("ends a script that runs too long, and the machine nobody knows of", { timeout: 300_000 }, async () => {
    const endless = ada.client.call(
      "micro.start",
      { image: "python", script: "while True: pass", timeout_ms: 3000 },
      SLOW,
    );
    await expect(endless).rejects.toMatchObject({ code: "Timeout" });
    await expect.poll(async () => (await ada.client.call("micro.list", {})).machines.length).toBe(0);
  });
});

it("says why where no machine can be started", async () => {
  await using none = await apiServer({ CDS_VM_IMAGES: "/nonexistent" });
  const user = await none.user("ada");
  const answer = user.client.call("micro.start", { image: "node" }, SLOW);
  await expect(answer).rejects.toMatchObject({
    code: "EngineUnavailable",
    details: { hint: expect.stringContaining("npm run micro") },
  });
  const { engines } = await user.client.call("sandbox.status", {}, SLOW);
  expect(engines.map(({ name }) => name)).toEqual(["fs", "run", "wasm", "micro"]);
  expect(engines.at(-1)).toMatchObject({ available: false, hint: expect.stringContaining("npm run micro") });
});
