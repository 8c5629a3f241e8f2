import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type ApiServer,
  type ApiUser,
  apiServer,
  openSocket,
  type TestSocket,
} from "#tests/support/api-server.ts";

let server: ApiServer;
let ada: ApiUser;

beforeAll(async () => {
  server = await apiServer({ CDS_TERMINALS_PER_USER: "2", CDS_TERMINAL_DETACHED_MS: "1500" });
  ada = await server.user("ada");
});
afterAll(() => server[Symbol.asyncDispose]());

const open = (user: ApiUser) => openSocket(server.url, { token: user.token });
/** All that a terminal has shown on this socket so far. */
const shown = (socket: TestSocket, id: string) =>
  socket.messages
    .filter(({ method, params }) => method === "terminal.output" && params.terminal_id === id)
    .map(({ params }) => params.data)
    .join("");
const shows = (socket: TestSocket, id: string, text: string | RegExp) =>
  expect.poll(() => shown(socket, id)).toMatch(text);
const typeInto = (socket: TestSocket, id: string, data: string) =>
  socket.call("terminal.input", { terminal_id: id, data });

async function terminal(socket: TestSocket, files: Record<string, string> = {}) {
  const project_id = await server.project(ada);
  for (const [path, content] of Object.entries(files)) {
    await ada.client.call("fs.write", { project_id, path, content });
  }
  const { result } = await socket.call("terminal.open", { project_id, columns: 90, rows: 30 });
  return { project_id, id: result.terminal_id as string, view: result };
}

async function close(socket: TestSocket, id: string): Promise<void> {
  await socket.call("terminal.close", { terminal_id: id });
}

describe("a terminal", () => {
  it("[SB-run] is a real one: size, resize, Ctrl+C, jobs, umlauts", async () => {
    const socket = await open(ada);
    const { id, view } = await terminal(socket);
    expect(view).toMatchObject({ attached: true, columns: 90, rows: 30 });
    await typeInto(socket, id, "stty size; echo $TERM\r");
    await shows(socket, id, /30 90\r\nxterm-256color/);
    await socket.call("terminal.resize", { terminal_id: id, columns: 120, rows: 40 });
    await typeInto(socket, id, "stty size\r");
    await shows(socket, id, "40 120");
    await typeInto(socket, id, "sleep 1000\r");
    await expect
      .poll(async () => JSON.stringify((await socket.call("run.list", {})).result))
      .toContain("sleep 1000");
    await typeInto(socket, id, "\u0003");
    await typeInto(socket, id, "echo co''de $?\r");
    await shows(socket, id, "code 130");
    await typeInto(socket, id, "sleep 999 &\rjobs; echo grü''ße\r");
    await shows(socket, id, /Running(.|\s)*grüße/);
    await close(socket, id);
    const exit = await socket.until(({ method }) => method === "terminal.exit");
    expect(exit.params).toMatchObject({ terminal_id: id });
    expect((await socket.call("terminal.list", {})).result.terminals).toEqual([]);
    socket.ws.close();
  });

  it("[SB-run] makes revisions of what is changed in it as it goes, and shows what others change", async () => {
    const socket = await open(ada);
    const { id, project_id } = await terminal(socket, { "a.txt": "1\n" });
    await typeInto(socket, id, "echo neu > b.txt\r");
    const saved = await socket.until(({ method }) => method === "terminal.saved");
    expect(saved.params).toEqual({ terminal_id: id, revision: 2 });
    expect((await ada.client.call("fs.read", { project_id, path: "b.txt" })).content).toBe("neu\n");
    await ada.client.call("fs.write", { project_id, path: "c.txt", content: "von außen\n" });
    await typeInto(socket, id, "until cat c.txt; do sleep 0.2; done\r");
    await shows(socket, id, "von außen");
    // At the end what was not yet seen is kept as well.
    await typeInto(socket, id, "echo zuletzt > d.txt; exit 3\r");
    const exit = await socket.until(({ method }) => method === "terminal.exit");
    expect(exit.params).toEqual({ terminal_id: id, exit_code: 3, signal: null });
    expect((await ada.client.call("fs.read", { project_id, path: "d.txt" })).content).toBe("zuletzt\n");
    socket.ws.close();
  });

  it("sends no more than is shown, and goes on when that is acknowledged", async () => {
    const socket = await open(ada);
    const { id } = await terminal(socket);
    await typeInto(socket, id, "yes 0123456789abcdef | head -c 3000000; echo en''de\r");
    const sizes = () => shown(socket, id).length;
    await expect.poll(sizes).toBeGreaterThan(500_000);
    // Until nothing comes any more.
    const still = async () => {
      const before = sizes();
      await new Promise((resolve) => setTimeout(resolve, 300));
      return sizes() === before;
    };
    await expect.poll(still).toBe(true);
    expect(sizes()).toBeLessThan(800_000);
    const acknowledge = async () => {
      const { params } = socket.messages.findLast(({ method }) => method === "terminal.output") ?? {};
      await socket.call("terminal.ack", { terminal_id: id, seq: params.seq });
      return shown(socket, id).includes("ende");
    };
    await expect.poll(acknowledge).toBe(true);
    expect(sizes()).toBeGreaterThan(3_000_000);
    await close(socket, id);
    socket.ws.close();
  });

  it("outlives its connection for a while, works on, and is shown again by another", async () => {
    const socket = await open(ada);
    const { id } = await terminal(socket);
    await typeInto(socket, id, "echo vor''her; sleep 0.5; echo nach''her\r");
    await shows(socket, id, "vorher");
    socket.ws.close();
    await socket.closed;
    const again = await open(ada);
    expect((await again.call("terminal.attach", { terminal_id: id })).result).toMatchObject({
      attached: true,
    });
    await shows(again, id, /vorher(.|\s)*nachher/);
    // A second page takes it over.
    const third = await open(ada);
    await third.call("terminal.attach", { terminal_id: id });
    await typeInto(third, id, "echo drit''ter\r");
    await shows(third, id, "dritter");
    expect(shown(again, id)).not.toContain("dritter");
    again.ws.close();
    third.ws.close();
    await third.closed;
    // Nobody comes back: it ends, and its place is free.
    await expect.poll(async () => (await ada.client.call("terminal.list", {})).terminals.length).toBe(0);
    await expect(ada.client.call("terminal.input", { terminal_id: id, data: "x" })).rejects.toMatchObject({
      code: "NotFound",
    });
  });

  it("ends whole: what was started in the background, too", async () => {
    const socket = await open(ada);
    const { id } = await terminal(socket);
    await typeInto(socket, id, "(setsid nohup sleep 4711 >/dev/null 2>&1 &) ; echo ge''startet\r");
    await shows(socket, id, "gestartet");
    const { processes } = (await socket.call("run.list", {})).result;
    expect(JSON.stringify(processes)).toContain("sleep 4711");
    expect(processes[0]).toMatchObject({ process_id: id, kind: "terminal" });
    expect((await socket.call("run.kill", { process_id: id })).result.killed).toBe(true);
    const exit = await socket.until(({ method }) => method === "terminal.exit");
    expect(exit.params.signal).toBe("SIGKILL");
    socket.ws.close();
  });

  it("is its user's alone, over WebSocket only, and no more than so many", async () => {
    const socket = await open(ada);
    const { id, project_id } = await terminal(socket);
    const bob = await server.user("bob");
    const stranger = await open(bob);
    for (const [method, more] of [
      ["terminal.attach", {}],
      ["terminal.input", { data: "x" }],
      ["terminal.resize", { columns: 10, rows: 10 }],
      ["terminal.ack", { seq: 1 }],
      ["terminal.close", {}],
    ] as const) {
      const { error } = await stranger.call(method, { terminal_id: id, ...more });
      expect(error.data.code).toBe("NotFound");
    }
    expect((await stranger.call("terminal.open", { project_id })).error.data.code).toBe("NotFound");
    await expect(ada.client.call("terminal.open", { project_id })).rejects.toMatchObject({
      code: "InvalidRequest",
    });
    const second = (await socket.call("terminal.open", { project_id, command: "cat" })).result;
    expect((await socket.call("terminal.open", { project_id })).error.data.code).toBe("QuotaExceeded");
    expect((await socket.call("terminal.open", { project_id, columns: 0 })).error.data.code).toBe(
      "InvalidParams",
    );
    await close(socket, second.terminal_id);
    await close(socket, id);
    stranger.ws.close();
    socket.ws.close();
  });
});
