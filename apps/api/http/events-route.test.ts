import { get } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { bumpTokenVersion } from "#database/accounts/index.ts";
import { appendEvents } from "#database/events/index.ts";
import { finishTask, requestCancel } from "#database/queue/index.ts";
import type { TaskEvent } from "#schemas";
import { type ApiServer, type ApiUser, apiServer, openSocket } from "#tests/support/api-server.ts";

vi.setConfig({ expect: { poll: { timeout: 30_000 } } });

let server: ApiServer;
let ada: ApiUser;

beforeAll(async () => {
  server = await apiServer({ CDS_MAX_SOCKETS_PER_USER: "3" }, { heartbeat: 150, stuck: 500 });
  ada = await server.user("ada");
});
afterAll(() => server[Symbol.asyncDispose]());

const follow = (
  task_id: string,
  token: string | undefined,
  headers: Record<string, string> = {},
  query = "",
) =>
  fetch(`${server.url}/tasks/${encodeURIComponent(task_id)}/events${query}`, {
    headers: { ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...headers },
  });

function parse(text: string): TaskEvent[] {
  return text
    .split("\n\n")
    .filter((block) => block.startsWith("id: "))
    .map((block) => {
      const [id, data] = block.split("\n");
      const event = JSON.parse(data?.replace("data: ", "") ?? "") as TaskEvent;
      expect(id).toBe(`id: ${event.seq}`);
      return event;
    });
}

async function runningTask(user: ApiUser, texts = 0, length = 3) {
  const task_id = await server.dispatch(user);
  const { attempt } = await server.claim();
  const { db } = server.test.database;
  const write = (count: number, size: number) =>
    appendEvents(
      db,
      { task_id, attempt },
      Array.from({ length: count }, () => ({ type: "text" as const, delta: "ß".repeat(size) })),
    );
  if (texts > 0) await write(texts, length);
  return { task_id, write, finish: () => finishTask(db, { task_id, attempt, state: "completed" }) };
}

describe("[GW-1] GET /tasks/:task_id/events", () => {
  it("streams live and ends by itself after done", async () => {
    const task = await runningTask(ada, 2);
    const response = await follow(task.task_id, ada.token);
    expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(response.headers.get("cache-control")).toBe("no-store");
    let text = "";
    for await (const piece of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      // Alive while nothing happens; only then does something.
      if (!text.includes(": keep-alive") && `${text}${piece}`.includes(": keep-alive\n\n")) {
        void task.write(3, 5).then(() => task.finish());
      }
      text += piece;
    }
    const events = parse(text);
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
    expect(events.at(-1)?.type).toBe("done");
    expect(text.startsWith("retry: ")).toBe(true);
    expect(text).toContain(": keep-alive\n\n");
  });

  it("resumes after Last-Event-ID, or after_seq, and answers 204 when nothing can come any more", async () => {
    const task = await runningTask(ada, 10);
    await task.finish();
    const all = parse(await (await follow(task.task_id, ada.token)).text());
    const byHeader = await follow(task.task_id, ada.token, { "last-event-id": "4" }, "?after_seq=1");
    expect(parse(await byHeader.text())).toEqual(all.slice(4));
    const byQuery = await follow(task.task_id, ada.token, {}, "?after_seq=9");
    expect(parse(await byQuery.text())).toEqual(all.slice(9));
    const after = await follow(task.task_id, ada.token, { "last-event-id": String(all.length) });
    expect(after.status).toBe(204);
  });

  it("refuses what is not signed in, not one's own, not there, or not a number", async () => {
    const task = await runningTask(ada, 1);
    const eve = await server.user();
    const status = async (response: Promise<Response>) => {
      const { status: code, body } = await response;
      await body?.cancel();
      return code;
    };
    expect(await status(follow(task.task_id, undefined))).toBe(401);
    expect(await status(follow(task.task_id, "forged"))).toBe(401);
    expect(await status(follow(task.task_id, eve.token))).toBe(404);
    expect(await status(follow("tsk_none", ada.token))).toBe(404);
    expect(await status(follow("a\0b", ada.token))).toBe(400);
    expect(await status(follow(task.task_id, undefined, {}, `?token=${ada.token}`))).toBe(400);
    for (const bad of ["x", "-1", "1.5", "99999999999"]) {
      expect(await status(follow(task.task_id, ada.token, { "last-event-id": bad }))).toBe(400);
      expect(await status(follow(task.task_id, ada.token, {}, `?after_seq=${bad}`))).toBe(400);
    }
    const head = await fetch(`${server.url}/tasks/${task.task_id}/events`, { method: "HEAD" });
    expect(head.status).toBe(404);
    await task.finish();
  });

  it("counts with the user's sockets, and gives the place back when the reader leaves", async () => {
    const bob = await server.user();
    const task = await runningTask(bob, 1);
    const leave = new AbortController();
    const open = () =>
      fetch(`${server.url}/tasks/${task.task_id}/events`, {
        headers: { authorization: `Bearer ${bob.token}` },
        signal: leave.signal,
      });
    const socket = await openSocket(server.url, { token: bob.token });
    expect((await open()).status).toBe(200);
    expect((await open()).status).toBe(200);
    expect((await follow(task.task_id, bob.token)).status).toBe(429);
    leave.abort();
    await expect.poll(() => server.feed.size).toBe(0);
    const again = await follow(task.task_id, bob.token);
    expect(again.status).toBe(200);
    await again.body?.cancel();
    socket.ws.close();
    await task.finish();
  });

  it("ends when the token is revoked", async () => {
    const user = await server.user();
    const task = await runningTask(user, 1);
    const response = await follow(task.task_id, user.token);
    setTimeout(() => {
      void bumpTokenVersion(server.test.database.db, user.id).then(() => server.invalidate(user.id));
    }, 100);
    expect(parse(await response.text()).some(({ type }) => type === "done")).toBe(false);
    await task.finish();
  });

  it("ends when the task is cancelled while it waits", async () => {
    const task_id = await server.dispatch(ada);
    const response = await follow(task_id, ada.token);
    await requestCancel(server.test.database.db, { user_id: ada.id }, task_id);
    expect(parse(await response.text()).at(-1)).toMatchObject({ type: "done", state: "cancelled" });
  });

  it("[MU-8] reads no further than a slow reader does, and gives up one that takes nothing", async () => {
    const task = await runningTask(ada, 0);
    const request = get(`${server.url}/tasks/${task.task_id}/events`, {
      headers: { authorization: `Bearer ${ada.token}` },
    });
    const response = await new Promise<import("node:http").IncomingMessage>((resolve) => {
      request.once("response", resolve);
    });
    response.pause();
    response.on("error", () => undefined);
    for (let i = 0; i < 20; i += 1) await task.write(10, 50_000);
    await sleep(100);
    const sockets = await new Promise<number>((resolve, reject) => {
      server.app.server.getConnections((error, count) => (error ? reject(error) : resolve(count)));
    });
    expect(sockets).toBeGreaterThan(0);
    // It is dropped after `stuck` ms without progress, with its subscription.
    await expect.poll(() => server.feed.size).toBe(0);
    request.destroy();
    await task.finish();
  });

  it("ends with the server", async () => {
    const closing = await apiServer();
    const user = await closing.user();
    const task_id = await closing.dispatch(user);
    const response = await fetch(`${closing.url}/tasks/${task_id}/events`, {
      headers: { authorization: `Bearer ${user.token}` },
    });
    let text = "";
    const reading = (async () => {
      for await (const part of response.body?.pipeThrough(new TextDecoderStream()) ?? []) text += part;
    })();
    await expect.poll(() => text).toContain("data:");
    await closing[Symbol.asyncDispose]();
    await reading;
    expect(parse(text).map(({ type }) => type)).toEqual(["state"]);
  });
});
