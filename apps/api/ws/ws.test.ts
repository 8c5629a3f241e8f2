import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { WebSocket } from "ws";
import { bumpTokenVersion, setRole } from "#database/accounts/index.ts";
import { appendEvents } from "#database/events/index.ts";
import { finishTask } from "#database/queue/index.ts";
import {
  type ApiServer,
  type ApiUser,
  apiServer,
  openSocket,
  type TestSocket,
} from "#tests/support/api-server.ts";

vi.setConfig({ expect: { poll: { timeout: 30_000 } } });
let server: ApiServer;
let ada: ApiUser;

beforeAll(async () => {
  server = await apiServer({
    CDS_ALLOWED_ORIGINS: "https://allowed.example",
    CDS_MAX_BODY_BYTES: "200000",
    CDS_MAX_SUBSCRIPTIONS: "3",
    CDS_MAX_SOCKETS_PER_USER: "6",
  });
  ada = await server.user("ada");
});
afterAll(() => server[Symbol.asyncDispose]());

const open = (options: Parameters<typeof openSocket>[1] = {}) => openSocket(server.url, options);
const done = (socket: TestSocket) => socket.until((message) => message.params?.type === "done");
const eventsOf = (socket: TestSocket) =>
  socket.messages.filter((message) => message.method === "agent.event").map((message) => message.params);

/** A running task with a log of `texts` text events. */
async function runningTask(user: ApiUser, texts: number) {
  const task_id = await server.dispatch(user);
  const task = await server.claim();
  expect(task.id).toBe(task_id);
  const write = (count: number, length = 3) =>
    appendEvents(
      server.test.database.db,
      { task_id, attempt: task.attempt },
      Array.from({ length: count }, (_, i) => ({
        type: "text" as const,
        delta: String(i).padEnd(length, "x"),
      })),
    );
  if (texts > 0) await write(texts);
  const finish = () =>
    finishTask(server.test.database.db, { task_id, attempt: task.attempt, state: "completed" });
  return { task_id, write, finish };
}

describe("[GW-2] who may connect", () => {
  it("by header, by subprotocol, or by session.authenticate", async () => {
    const byHeader = await open({ token: ada.token });
    expect((await byHeader.call("session.me", {})).result.user.username).toBe("ada");
    const byProtocol = await open({ protocols: ["cds.v1", `bearer.${ada.token}`] });
    expect(byProtocol.ws.protocol).toBe("cds.v1");
    expect((await byProtocol.call("session.me", {})).result.user.username).toBe("ada");
    const byMethod = await open();
    expect((await byMethod.call("session.me", {})).error.data.code).toBe("Unauthenticated");
    expect((await byMethod.call("session.authenticate", { token: ada.token })).result.user.id).toBe(ada.id);
    expect((await byMethod.call("session.me", {})).result.user.username).toBe("ada");
    for (const socket of [byHeader, byProtocol, byMethod]) socket.ws.close();
  });

  it("a call sent right after session.authenticate waits for it", async () => {
    const socket = await open();
    socket.send({ jsonrpc: "2.0", method: "session.authenticate", params: { token: ada.token }, id: "a" });
    socket.send({ jsonrpc: "2.0", method: "session.me", id: "b" });
    expect((await socket.until((message) => message.id === "b")).result.user.username).toBe("ada");
    socket.ws.close();
  });

  it("a token in the address is refused, and so is a bad header", async () => {
    for (const path of [`/ws?token=${ada.token}`, "/ws?access_token=x", "/ws?api_key=x"]) {
      await expect(open({ path })).rejects.toMatchObject({ status: 400 });
    }
    await expect(open({ token: "forged" })).rejects.toMatchObject({ status: 401 });
    expect(server.log.join("")).not.toContain(ada.token);
  });

  it("a bad token in a subprotocol closes with 4401, which a browser can read", async () => {
    const socket = await open({ protocols: ["cds.v1", "bearer.forged"] });
    expect(await socket.closed).toMatchObject({ code: 4401 });
  });

  it("pages of other origins are refused", async () => {
    await expect(open({ headers: { origin: "https://evil.example" } })).rejects.toMatchObject({
      status: 403,
    });
    for (const origin of ["https://allowed.example", server.url]) {
      const socket = await open({ token: ada.token, headers: { origin } });
      socket.ws.close();
    }
  });

  it("over plain HTTP it says what it is", async () => {
    const answer = await fetch(`${server.url}/ws`);
    expect(answer.status).toBe(400);
    expect(await answer.text()).toContain("WebSocket");
  });

  it("somebody else cannot take over a signed-in connection", async () => {
    const bob = await server.user("bob");
    const socket = await open({ token: ada.token });
    expect((await socket.call("session.authenticate", { token: bob.token })).error.data.code).toBe(
      "Conflict",
    );
    expect((await socket.call("session.authenticate", { token: "forged" })).error.data.code).toBe(
      "Unauthenticated",
    );
    expect((await socket.call("session.authenticate", { token: ada.token })).result.user.id).toBe(ada.id);
    expect((await socket.call("session.me", {})).result.user.id).toBe(ada.id);
    socket.ws.close();
  });

  it("a user's sockets are limited", async () => {
    const carl = await server.user("carl");
    const sockets = await Promise.all(Array.from({ length: 6 }, () => open({ token: carl.token })));
    const seventh = await open({ token: carl.token });
    expect(await seventh.closed).toMatchObject({ code: 4429 });
    const late = await open();
    expect((await late.call("session.authenticate", { token: carl.token })).error.data.code).toBe(
      "RateLimited",
    );
    sockets[0]?.ws.close();
    await sockets[0]?.closed;
    // The server sees the end a little later than its client.
    const tryAgain = async () => {
      const socket = await open({ token: carl.token });
      const answer = await Promise.race([socket.call("session.me", {}), socket.closed]);
      return "result" in answer ? socket : undefined;
    };
    let another = await tryAgain();
    for (let tries = 0; another === undefined; tries += 1) {
      if (tries > 200) throw new Error("the place was not given back");
      await sleep(50);
      another = await tryAgain();
    }
    expect((await another.call("session.me", {})).result.user.id).toBe(carl.id);
    for (const socket of [...sockets, another, late]) socket.ws.close();
  });
});

describe("[GW-1] JSON-RPC over WebSocket", () => {
  it("singles, batches, notifications and errors", async () => {
    const socket = await open({ token: ada.token });
    socket.send({ jsonrpc: "2.0", method: "nothing.such" });
    socket.send([
      { jsonrpc: "2.0", method: "session.me", id: 1 },
      { jsonrpc: "2.0", method: "agent.list", id: 2 },
    ]);
    const batch = await socket.until(Array.isArray);
    expect(batch.map(({ id }: { id: number }) => id)).toEqual([1, 2]);
    socket.send("{");
    expect((await socket.until((message) => message.error !== undefined)).error.code).toBe(-32700);
    socket.ws.send(Buffer.from([0xff, 0xfe]));
    await socket.until(
      () => socket.messages.filter((message) => message.error?.code === -32700).length === 2,
    );
    expect(socket.messages).toHaveLength(3);
    socket.ws.close();
  });

  it("a message over the limit closes with 1009; a large one before signing in with 4401", async () => {
    const signedIn = await open({ token: ada.token });
    signedIn.ws.on("error", () => undefined);
    signedIn.ws.send(" ".repeat(300_000));
    expect((await signedIn.closed).code).toBe(1009);
    const nameless = await open();
    nameless.ws.send(" ".repeat(100_000));
    expect((await nameless.closed).code).toBe(4401);
  });

  it("any bytes get a valid answer, and the connection stays", async () => {
    const socket = await open({ token: ada.token });
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.uint8Array({ maxLength: 100 }), fc.json()), async (data) => {
        socket.ws.send(data);
        await socket.call("session.me", {});
      }),
      { numRuns: 150 },
    );
    expect(socket.messages.flat().every((message) => message.jsonrpc === "2.0")).toBe(true);
    socket.ws.close();
  });

  it("hundreds of calls at once are all answered, few of them in work at a time", async () => {
    const socket = await open({ token: ada.token });
    const answers = await Promise.all(Array.from({ length: 300 }, () => socket.call("billing.balance", {})));
    expect(answers.every((answer) => answer.result.balance_microcredits > 0)).toBe(true);
    socket.ws.close();
  });
});

describe("[AG-3] agent.subscribe", () => {
  it("sends every event in order after the answer, and done last", async () => {
    const task = await runningTask(ada, 5);
    const socket = await open({ token: ada.token });
    const { result } = await socket.call("agent.subscribe", { task_id: task.task_id });
    expect(result).toMatchObject({ task_id: task.task_id, state: "running" });
    await task.write(3);
    await task.finish();
    await done(socket);
    const events = eventsOf(socket);
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
    expect(events.at(-1)).toMatchObject({ type: "done", state: "completed" });
    expect(socket.messages[0].id).toBe("call-1");
    expect(server.feed.size).toBe(0);
    socket.ws.close();
  });

  it("resumes after a seq, nothing missing and nothing twice", async () => {
    const task = await runningTask(ada, 20);
    await task.finish();
    const first = await open({ token: ada.token });
    await first.call("agent.subscribe", { task_id: task.task_id });
    await done(first);
    const all = eventsOf(first);
    const second = await open({ token: ada.token });
    await second.call("agent.subscribe", { task_id: task.task_id, after_seq: 7 });
    await done(second);
    expect(eventsOf(second)).toEqual(all.slice(7));
    const { result } = await second.call("agent.subscribe", {
      task_id: task.task_id,
      after_seq: 2 ** 31 - 1,
    });
    expect(result.last_seq).toBe(all.length);
    for (const socket of [first, second]) socket.ws.close();
  });

  it("knows no task of somebody else's", async () => {
    const task = await runningTask(ada, 1);
    const eve = await server.user();
    const socket = await open({ token: eve.token });
    const { error } = await socket.call("agent.subscribe", { task_id: task.task_id });
    expect(error.data.code).toBe("NotFound");
    await task.finish();
    await sleep(200);
    expect(eventsOf(socket)).toEqual([]);
    socket.ws.close();
  });

  it("is limited per connection, replaced by the same task, ended by unsubscribe and by leaving", async () => {
    const tasks = [
      await runningTask(ada, 1),
      await runningTask(ada, 1),
      await runningTask(ada, 1),
      await runningTask(ada, 1),
    ];
    const socket = await open({ token: ada.token });
    const subscribe = (index: number) => socket.call("agent.subscribe", { task_id: tasks[index]?.task_id });
    for (const index of [0, 1, 2, 0]) expect((await subscribe(index)).error).toBeUndefined();
    expect((await subscribe(3)).error.data.code).toBe("RateLimited");
    await socket.call("agent.unsubscribe", { task_id: tasks[0]?.task_id });
    expect((await subscribe(3)).error).toBeUndefined();
    await expect.poll(() => server.feed.size).toBe(3);
    socket.ws.terminate();
    await expect.poll(() => server.feed.size).toBe(0);
    for (const task of tasks) await task.finish();
  });

  it("[MU-8] a reader that does not read is given no more than it takes", async () => {
    const task = await runningTask(ada, 0);
    const socket = await open({ token: ada.token });
    await socket.call("agent.subscribe", { task_id: task.task_id });
    socket.ws.pause();
    for (let i = 0; i < 60; i += 1) await task.write(10, 100_000);
    const full = () => [...server.app.websocketServer.clients].filter((ws) => ws.bufferedAmount > 0);
    await expect.poll(full).toHaveLength(1);
    const [sender] = full();
    let held = -1;
    for (let still = 0; still < 10; await sleep(20)) {
      still = sender?.bufferedAmount === held ? still + 1 : 0;
      held = sender?.bufferedAmount ?? 0;
    }
    // One page (a quarter of a MiB, and the event that overshoots it), of 60 MB that were written.
    expect(sender?.bufferedAmount).toBeGreaterThan(0);
    expect(sender?.bufferedAmount).toBeLessThan(2_000_000);
    socket.ws.resume();
    await task.finish();
    await socket.until((message) => message.params?.type === "done", 30_000);
    expect(eventsOf(socket).map(({ seq }) => seq)).toEqual(Array.from({ length: 604 }, (_, i) => i + 1));
    socket.ws.close();
  });
});

describe("a connection's end", () => {
  let quick: ApiServer;
  beforeAll(async () => {
    quick = await apiServer({}, { ping: 200, check: 150, signIn: 400, stuck: 600 });
  });
  afterAll(() => quick[Symbol.asyncDispose]());

  it("closes with 4401 when nobody signs in", async () => {
    const socket = await openSocket(quick.url);
    expect(await socket.closed).toMatchObject({ code: 4401 });
  });

  it("closes with 4401 when the token is revoked, silent or not", async () => {
    for (const active of [true, false]) {
      const user = await quick.user();
      const socket = await openSocket(quick.url, { token: user.token });
      await socket.call("session.me", {});
      await bumpTokenVersion(quick.test.database.db, user.id);
      quick.invalidate(user.id);
      if (active) expect((await socket.call("session.me", {})).error.data.code).toBe("Unauthenticated");
      expect((await socket.closed).code).toBe(4401);
    }
  });

  it("closes with 4401 when the token expires", async () => {
    await using brief = await apiServer({ CDS_ACCESS_TOKEN_SECONDS: "5" });
    const user = await brief.user();
    const socket = await openSocket(brief.url, { token: user.token });
    // By itself: the client says nothing more.
    expect(await socket.closed).toEqual({ code: 4401, reason: expect.stringContaining("expired") });
  });

  it("gives a role taken away no more say", async () => {
    const user = await quick.user();
    const socket = await openSocket(quick.url, { token: user.token });
    expect((await socket.call("provider.delete", {})).result).toEqual({ deleted: false });
    await setRole(quick.test.database.db, user.id, "viewer");
    quick.invalidate(user.id);
    const { error } = await socket.call("provider.delete", {});
    expect(["Forbidden", "Unauthenticated"]).toContain(error.data.code);
    socket.ws.close();
  });

  it("pings, and gives up a peer that does not answer", async () => {
    const user = await quick.user();
    const socket = await openSocket(quick.url, { token: user.token });
    let pings = 0;
    socket.ws.on("ping", () => {
      pings += 1;
    });
    await expect.poll(() => pings).toBeGreaterThanOrEqual(2);
    expect(socket.ws.readyState).toBe(WebSocket.OPEN);
    // The library answers pings itself; a paused peer reads none.
    socket.ws.pause();
    await expect.poll(() => quick.app.websocketServer.clients.size).toBe(0);
    socket.ws.terminate();
  });

  it("comes with the server's, as 1001", async () => {
    const closing = await apiServer();
    const user = await closing.user();
    const task_id = await closing.dispatch(user);
    const socket = await openSocket(closing.url, { token: user.token });
    await socket.call("agent.subscribe", { task_id });
    await closing[Symbol.asyncDispose]();
    // Said in words, not cut off (1006) when the grace was over.
    expect((await socket.closed).code).toBe(1001);
    expect(closing.app.websocketServer.clients.size).toBe(0);
  });
});
