import { existsSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { allProcesses } from "#sandbox/process-tree.ts";
import { type ApiServer, type ApiUser, apiServer, openSocket } from "#tests/support/api-server.ts";

let server: ApiServer;
let ada: ApiUser;

beforeAll(async () => {
  server = await apiServer({
    CDS_PROGRAMS_PER_USER: "3",
    CDS_RUN_TIMEOUT_MS: "60000",
    CDS_RUN_OUTPUT_KB: "8",
  });
  ada = await server.user("ada");
});
afterAll(() => server[Symbol.asyncDispose]());

async function projectOf(user: ApiUser, files: Record<string, string> = {}): Promise<string> {
  const project_id = await server.project(user);
  for (const [path, content] of Object.entries(files)) {
    await user.client.call("fs.write", { project_id, path, content });
  }
  return project_id;
}

const sh = (project_id: string, script: string) => ({ project_id, command: "sh", args: ["-c", script] });
const running = (needle: string) =>
  [...allProcesses().values()].filter(({ command }) => command.includes(needle)).length;

describe("run.exec", () => {
  it("[SB-run] runs a program on the project's files and gives back all of it, umlauts and bytes alike", async () => {
    const project_id = await projectOf(ada, { "src/a.txt": "Grüße\n" });
    const result = await ada.client.call("run.exec", {
      ...sh(project_id, 'cat src/a.txt; printf "%s" "$NAME" >&2; cat; exit 3'),
      env: { NAME: "Jürgen" },
      stdin: "ein",
    });
    expect(result).toEqual({
      process_id: expect.stringMatching(/^run_/),
      exit_code: 3,
      stdout: "Grüße\nein",
      stderr: "Jürgen",
      truncated: false,
      duration_ms: expect.any(Number),
    });
    const bytes = await ada.client.call("run.exec", {
      ...sh(project_id, "printf '\\377\\000'"),
      encoding: "base64",
    });
    expect(bytes.stdout).toBe("/wA=");
  });

  it("makes one revision of what it changes, also when it fails", async () => {
    const project_id = await projectOf(ada, { "a.txt": "1\n" });
    const result = await ada.client.call(
      "run.exec",
      sh(project_id, "echo 2 > a.txt; mkdir x; echo n > x/n; false"),
    );
    expect(result).toMatchObject({ exit_code: 1, revision: 2 });
    expect((await ada.client.call("fs.read", { project_id, path: "x/n" })).content).toBe("n\n");
    const { revisions } = await ada.client.call("project.revisions", { project_id });
    expect(revisions[0]).toMatchObject({
      author: "ada",
      files: 2,
      summary: expect.stringMatching(/^Run: sh -c/),
    });
    // Rolled back as any other.
    await ada.client.call("project.rollback", { project_id, revision: 1 });
    expect(await ada.client.call("run.exec", sh(project_id, "cat a.txt; ls"))).toMatchObject({
      stdout: "1\na.txt\n",
    });
  });

  it("starts in a directory of the project, and nowhere else", async () => {
    const project_id = await projectOf(ada, { "lib/b.txt": "b\n" });
    const run = (cwd: string) =>
      ada.client.call("run.exec", { project_id, command: "cat", args: ["b.txt"], cwd });
    expect((await run("lib/")).stdout).toBe("b\n");
    for (const cwd of ["..", "/etc", "lib/../..", "a\0"]) {
      await expect(run(cwd)).rejects.toMatchObject({ code: "InvalidParams" });
    }
  });

  it("tells a program that is not there as a shell does, and what was probably meant", async () => {
    const project_id = await projectOf(ada);
    const run = (command: string) => ada.client.call("run.exec", { project_id, command });
    expect(await run("nonexistent")).toMatchObject({
      exit_code: 127,
      stderr: "nonexistent: command not found.\n",
    });
    expect((await run("npm test")).stderr).toContain('["-c", "npm test"]');
  });

  it("bounds output and time, and says so", async () => {
    const project_id = await projectOf(ada);
    const flood = await ada.client.call(
      "run.exec",
      sh(project_id, "echo start; yes | head -c 100000; echo end"),
    );
    expect(flood).toMatchObject({ truncated: true, exit_code: 0 });
    expect(flood.stdout).toMatch(/^start\n(.|\n)*bytes left out(.|\n)*end\n$/);
    const slow = await ada.client.call("run.exec", {
      ...sh(project_id, "echo before; sleep 1000"),
      timeout_ms: 300,
    });
    expect(slow).toMatchObject({ limit: "time", stdout: "before\n" });
    await expect(
      ada.client.call("run.exec", { ...sh(project_id, "true"), timeout_ms: 60_001 }),
    ).rejects.toMatchObject({ code: "InvalidParams" });
  });

  it("has no network, and none can be asked for that the operator does not allow", async () => {
    const project_id = await projectOf(ada);
    const answer = ada.client.call("run.exec", { ...sh(project_id, "true"), network: ["example.org"] });
    await expect(answer).rejects.toMatchObject({ code: "Forbidden", details: { hint: expect.any(String) } });
    await expect(
      ada.client.call("run.exec", { ...sh(project_id, "true"), network: true }),
    ).rejects.toMatchObject({ code: "Forbidden" });
  });

  it("is nobody else's: not the project, not the program", async () => {
    const bob = await server.user("bob");
    const project_id = await projectOf(ada);
    await expect(bob.client.call("run.exec", sh(project_id, "true"))).rejects.toMatchObject({
      code: "NotFound",
    });
    const viewer = await server.user("carl", "viewer");
    await expect(viewer.client.call("run.exec", sh(project_id, "true"))).rejects.toMatchObject({
      code: "Forbidden",
    });
    const work = ada.client.call("run.exec", sh(project_id, "sleep 1000"));
    const [listed] = await expect
      .poll(async () => (await ada.client.call("run.list", { project_id })).processes)
      .toHaveLength(1)
      .then(async () => (await ada.client.call("run.list", { project_id })).processes);
    const process_id = listed?.process_id ?? "";
    expect(await bob.client.call("run.list", {})).toEqual({ processes: [] });
    await expect(bob.client.call("run.kill", { process_id })).rejects.toMatchObject({ code: "NotFound" });
    expect(await ada.client.call("run.kill", { process_id })).toEqual({ process_id, killed: true });
    expect(await work).toMatchObject({ exit_code: null, signal: "SIGKILL" });
    await expect(ada.client.call("run.kill", { process_id })).rejects.toMatchObject({ code: "NotFound" });
  });

  it("lists what runs inside, and signals one process of it", async () => {
    const project_id = await projectOf(ada);
    const work = ada.client.call("run.exec", sh(project_id, "sleep 1111 & wait; echo went on"));
    const find = async () => {
      const { processes } = await ada.client.call("run.list", { project_id });
      const inside = processes[0]?.processes.find(({ command }) => command === "sleep 1111");
      return inside === undefined
        ? undefined
        : { process_id: processes[0]?.process_id ?? "", pid: inside.pid };
    };
    await expect.poll(find).toBeDefined();
    const target = await find();
    if (target === undefined) throw new Error("it has gone");
    await expect(
      ada.client.call("run.kill", { process_id: target.process_id, pid: 99_999 }),
    ).rejects.toMatchObject({ code: "NotFound" });
    await ada.client.call("run.kill", { ...target, signal: "SIGTERM" });
    expect(await work).toMatchObject({ exit_code: 0, stdout: "went on\n" });
  });

  it("refuses more programs at once than a user may have", async () => {
    const project_id = await projectOf(ada);
    const three = [1, 2, 3].map(() => ada.client.call("run.exec", sh(project_id, "sleep 1000")));
    await expect.poll(async () => (await ada.client.call("run.list", {})).processes.length).toBe(3);
    await expect(ada.client.call("run.exec", sh(project_id, "true"))).rejects.toMatchObject({
      code: "QuotaExceeded",
    });
    for (const { process_id } of (await ada.client.call("run.list", {})).processes) {
      await ada.client.call("run.kill", { process_id });
    }
    expect(await Promise.all(three)).toMatchObject([{ exit_code: null }, {}, {}]);
    expect(await ada.client.call("run.exec", sh(project_id, "true"))).toMatchObject({ exit_code: 0 });
  });

  it("ends with its project, and with whoever waited for it", async () => {
    const project_id = await projectOf(ada);
    const marker = "sleep 4242";
    const work = ada.client.call("run.exec", sh(project_id, `exec ${marker}`));
    await expect
      .poll(async () => (await ada.client.call("run.list", { project_id })).processes.length)
      .toBe(1);
    const dir = await server.api.workbench.workspaces.use(
      { user_id: ada.id, username: "ada" },
      project_id,
      AbortSignal.timeout(10_000),
    );
    dir.release();
    await ada.client.call("project.delete", { id: project_id });
    expect(await work).toMatchObject({ exit_code: null });
    expect(existsSync(dir.workspace.slot.dir)).toBe(false);

    const other = await projectOf(ada);
    const gone = new AbortController();
    const aborted = ada.client.call("run.exec", sh(other, "exec sleep 4243"), { signal: gone.signal });
    await expect
      .poll(async () => (await ada.client.call("run.list", { project_id: other })).processes.length)
      .toBe(1);
    gone.abort();
    await expect(aborted).rejects.toMatchObject({ code: "Cancelled" });
    await expect
      .poll(async () => (await ada.client.call("run.list", { project_id: other })).processes.length)
      .toBe(0);
    expect(running("4242") + running("4243")).toBe(0);
  });

  it("is understood as sandbox/run.exec too", async () => {
    const project_id = await projectOf(ada);
    const answer = await server.post(
      { jsonrpc: "2.0", id: 1, method: "sandbox/run.exec", params: sh(project_id, "echo ja") },
      ada.token,
    );
    expect(answer.body.result.stdout).toBe("ja\n");
  });
});

describe("run.exec with network", () => {
  it("reaches the hosts it names of those the operator allows, and tells what it was refused", async () => {
    const asked: string[] = [];
    const web = createServer((request, response) => {
      asked.push(request.url ?? "");
      response.end("da");
    });
    await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve));
    const { port } = web.address() as AddressInfo;
    const env = { CDS_SANDBOX_HOSTS: `localhost:${port},example.org`, CDS_SANDBOX_REACH: "machine" };
    await using open = await apiServer(env);
    const user = await open.user("ada");
    const project_id = await open.project(user);
    const get = `
      for (const url of ["http://localhost:${port}/a", "http://example.com/b"])
        await fetch(url).then(async (r) => console.log(r.status, r.ok ? await r.text() : ""), () => console.log("refused"));
    `;
    const run = (network: boolean | string[]) =>
      user.client.call("run.exec", {
        project_id,
        command: "node",
        args: ["--input-type=module", "-e", get],
        env: { NO_PROXY: "", no_proxy: "" },
        network,
      });
    const allowed = await run([`localhost:${port}`]);
    expect(allowed).toMatchObject({
      exit_code: 0,
      stdout: "200 da\nrefused\n",
      refused_hosts: ["example.com:80"],
    });
    expect(asked).toEqual(["/a"]);
    const without = await run(false);
    expect(without.stdout).not.toContain("da");
    expect(asked).toEqual(["/a"]);
    await expect(run(["example.com"])).rejects.toMatchObject({ code: "Forbidden" });
    await expect(run(["http://localhost/"])).rejects.toMatchObject({ code: "InvalidParams" });
    web.close();
  });
});

describe("run.stream", () => {
  it("[SB-run] sends output as it comes, in order, and the rest at the end", async () => {
    const project_id = await projectOf(ada);
    const socket = await openSocket(server.url, { token: ada.token });
    const script = "echo eins; read wort; echo zwei; echo $wort ä >&2; exit 7";
    const answer = socket.call("run.stream", { ...sh(project_id, script), stdin: "drei\n", tag: "t1" });
    const started = await socket.until((message) => message.method === "run.started");
    expect(started.params).toEqual({ process_id: expect.stringMatching(/^run_/), tag: "t1" });
    const { result } = await answer;
    expect(result).toMatchObject({
      process_id: started.params.process_id,
      exit_code: 7,
      stdout: "",
      stderr: "",
    });
    const pieces = socket.messages
      .filter(({ method }) => method === "run.output")
      .map(({ params }) => params);
    expect(pieces.map(({ seq }) => seq)).toEqual(pieces.map((_, index) => index + 1));
    const of = (stream: string) =>
      pieces
        .filter((piece) => piece.stream === stream)
        .map(({ data }) => data)
        .join("");
    expect([of("stdout"), of("stderr")]).toEqual(["eins\nzwei\n", "drei ä\n"]);
    socket.ws.close();
  });

  it("keeps no other call waiting, however many run, and ends with its connection", async () => {
    const project_id = await projectOf(ada);
    const socket = await openSocket(server.url, { token: ada.token });
    for (let index = 0; index < 12; index += 1) {
      socket.send({
        jsonrpc: "2.0",
        id: `s${index}`,
        method: "run.stream",
        params: sh(project_id, "sleep 1000"),
      });
    }
    await expect.poll(() => socket.messages.filter(({ method }) => method === "run.started").length).toBe(3);
    await expect
      .poll(() => socket.messages.filter(({ error }) => error?.data.code === "QuotaExceeded").length)
      .toBe(9);
    expect((await socket.call("session.me", {})).result.user.username).toBe("ada");
    socket.ws.close();
    await expect.poll(async () => (await ada.client.call("run.list", {})).processes.length).toBe(0);
  });

  it("works over WebSocket only", async () => {
    const project_id = await projectOf(ada);
    await expect(ada.client.call("run.stream", sh(project_id, "true"))).rejects.toMatchObject({
      code: "InvalidRequest",
    });
  });
});
