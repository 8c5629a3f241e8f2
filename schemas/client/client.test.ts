import { createServer, type Server } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { bumpTokenVersion } from "#database/accounts/index.ts";
import { appendEvents } from "#database/events/index.ts";
import { finishTask } from "#database/queue/index.ts";
import { AppError, type TaskEvent, type TaskState } from "#schemas";
import { createAuth, createClient, type SubscribeOptions } from "#schemas/client/index.ts";
import { TaskEvents } from "#schemas/client/task-events.ts";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";
import { authServer } from "#tests/support/auth-server.ts";

vi.setConfig({ expect: { poll: { timeout: 30_000 } } });

let server: ApiServer;
let ada: ApiUser;

beforeAll(async () => {
  server = await apiServer();
  ada = await server.user("ada");
});
afterAll(() => server[Symbol.asyncDispose]());

async function runningTask(user: ApiUser) {
  const task_id = await server.dispatch(user);
  const { attempt } = await server.claim();
  const { db } = server.test.database;
  return {
    task_id,
    say: (delta: string) => appendEvents(db, { task_id, attempt }, [{ type: "text", delta }]),
    finish: () => finishTask(db, { task_id, attempt, state: "completed" }),
  };
}

function watch() {
  const events: TaskEvent[] = [];
  const connections: boolean[] = [];
  const ended = Promise.withResolvers<TaskState>();
  const options: SubscribeOptions = {
    onEvent: (event) => void events.push(event),
    onDone: (state) => ended.resolve(state),
    onError: (error) => ended.reject(error),
    onConnection: (connected) => void connections.push(connected),
  };
  ended.promise.catch(() => undefined);
  return { events, connections, ended: ended.promise, options };
}

/** A plain TCP proxy that can cut every connection, or swallow what they carry, as a network does. */
async function proxyTo(url: string) {
  const sockets = new Set<Socket>();
  const state = { refuse: false };
  const proxy = createTcpServer((socket) => {
    if (state.refuse) {
      socket.destroy();
      return;
    }
    const upstream = connect(Number(new URL(url).port), "127.0.0.1");
    for (const [end, other] of [
      [socket, upstream],
      [upstream, socket],
    ] as const) {
      sockets.add(end);
      end.pipe(other);
      end.on("error", () => other.destroy());
      end.on("close", () => sockets.delete(end) && other.destroy());
    }
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return Object.assign(state, {
    url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    cut,
    /** The connections of now stay open and carry nothing any more. */
    swallow: () => {
      for (const socket of sockets) socket.unpipe().on("data", () => undefined);
    },
    close: () => {
      proxy.close();
      cut();
    },
  });
}

async function answering(
  answer: Parameters<typeof createServer>[1],
): Promise<{ url: string; server: Server }> {
  const http = createServer(answer as never);
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`, server: http };
}

describe("[GW-1] calls", () => {
  it("answer typed, or throw the server's error as it was", async () => {
    expect((await ada.client.call("session.me", {})).user.username).toBe("ada");
    const error = await ada.client.call("agent.status", { task_id: "tsk_none" }).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(AppError);
    expect(error).toMatchObject({ code: "NotFound", httpStatus: 404, message: "There is no task tsk_none." });
    await expect(ada.client.call("agent.history", { limit: 1000 })).rejects.toMatchObject({
      code: "InvalidParams",
      details: { issues: [{ path: "params.limit" }] },
    });
  });

  it("go together as a batch, each with its own outcome and type", async () => {
    const [me, missing, balance] = await ada.client.batch([
      { method: "session.me", params: {} },
      { method: "agent.status", params: { task_id: "tsk_none" } },
      { method: "billing.balance", params: {} },
    ]);
    expect(me.ok && me.result.user.username).toBe("ada");
    expect(!missing.ok && missing.error.code).toBe("NotFound");
    expect(balance.ok && balance.result.balance_microcredits).toBe(10_000_000);
    expect(await ada.client.batch([])).toEqual([]);
    const many = Array.from({ length: 51 }, () => ({ method: "session.me", params: {} }) as const);
    await expect(ada.client.batch(many)).rejects.toMatchObject({ code: "InvalidRequest" });
  });

  it("end in time, at the caller's wish, and say when nobody is there", async () => {
    const silent = await answering(() => undefined);
    const client = createClient({ baseUrl: silent.url, token: "t", timeoutMs: 100 });
    await expect(client.call("session.me", {})).rejects.toMatchObject({ code: "Timeout" });
    const signal = AbortSignal.timeout(50);
    await expect(client.call("session.me", {}, { signal, timeoutMs: 5000 })).rejects.toMatchObject({
      code: "Cancelled",
    });
    silent.server.closeAllConnections();
    silent.server.close();
    await expect(
      createClient({ baseUrl: "http://127.0.0.1:1" }).call("session.me", {}),
    ).rejects.toMatchObject({
      code: "Unavailable",
    });
  });

  it("make sense of answers that are not ours", async () => {
    let status = 502;
    let body = "<html>Bad gateway</html>";
    const odd = await answering((_request: unknown, response: import("node:http").ServerResponse) => {
      response.writeHead(status, { "retry-after": "7" }).end(body);
    });
    const client = createClient({ baseUrl: odd.url });
    const failure = () => client.call("session.me", {}).catch((thrown) => thrown);
    expect(await failure()).toMatchObject({ code: "Unavailable", details: { retry_after_seconds: 7 } });
    status = 418;
    expect(await failure()).toMatchObject({ code: "InternalError" });
    status = 200;
    for (body of ["{}", "[]", "null", `{"jsonrpc":"2.0","error":null}`, `{"jsonrpc":"2.0","error":"x"}`]) {
      expect(await failure()).toMatchObject({ code: "InternalError" });
    }
    body = `{"jsonrpc":"2.0","error":{"code":-32402,"message":"no credit"},"id":1}`;
    expect(await failure()).toMatchObject({ code: "InsufficientBalance", message: "no credit" });
    body = `{"jsonrpc":"2.0","error":{"code":-1,"message":"?","data":{"code":"__proto__"}},"id":1}`;
    expect(await failure()).toMatchObject({ code: "InternalError" });
    body = `[{"jsonrpc":"2.0","result":1,"id":0}]`;
    const [first, second] = await client.batch([
      { method: "session.me", params: {} },
      { method: "session.me", params: {} },
    ]);
    expect([first.ok, second.ok]).toEqual([true, false]);
    odd.server.close();
  });

  it("renew a refused token once, and only when there is another", async () => {
    const asked: (string | undefined)[] = [];
    const client = createClient({
      baseUrl: server.url,
      getToken: (refused) => {
        asked.push(refused);
        return refused === undefined ? "stale" : ada.token;
      },
    });
    expect((await client.call("session.me", {})).user.username).toBe("ada");
    expect(asked).toEqual([undefined, "stale"]);
    const same = createClient({ baseUrl: server.url, token: "stale" });
    await expect(same.call("session.me", {})).rejects.toMatchObject({ code: "Unauthenticated" });
  });
});

describe("[GW-1] following a task", () => {
  it("gives every event once, in order, and ends", async () => {
    const task = await runningTask(ada);
    const { events, ended, options } = watch();
    ada.client.subscribeTask(task.task_id, options);
    await task.say("a");
    await expect.poll(() => events.at(-1)).toMatchObject({ delta: "a" });
    await task.say("b");
    await task.finish();
    expect(await ended).toBe("completed");
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
    // The connection goes with its last subscription.
    await expect.poll(() => server.app.websocketServer.clients.size).toBe(0);
  });

  it("comes back after a broken connection where it left off", async () => {
    const proxy = await proxyTo(server.url);
    const client = createClient({ baseUrl: proxy.url, token: ada.token });
    const task = await runningTask(ada);
    const { events, connections, ended, options } = watch();
    client.subscribeTask(task.task_id, options);
    for (let round = 0; round < 3; round += 1) {
      await task.say(`round ${round}`);
      await expect.poll(() => events.at(-1)).toMatchObject({ delta: `round ${round}` });
      proxy.cut();
      await task.say(`missed ${round}`);
      await expect.poll(() => events.at(-1)).toMatchObject({ delta: `missed ${round}` });
    }
    await task.finish();
    await ended;
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
    expect(connections).toEqual([true, false, true, false, true, false, true]);
    proxy.close();
  });

  it("two watchers of one task get the whole of it, also the later one", async () => {
    const task = await runningTask(ada);
    await task.say("before");
    const one = watch();
    const two = watch();
    const late = ada.client.subscribeTask(task.task_id, one.options);
    await expect.poll(() => one.events.length).toBeGreaterThan(1);
    ada.client.subscribeTask(task.task_id, two.options);
    await expect.poll(() => two.events.length).toBe(one.events.length);
    late.close();
    await task.say("after");
    await task.finish();
    await two.ended;
    expect(two.events.map(({ seq }) => seq)).toEqual(two.events.map((_, index) => index + 1));
    expect(one.events.length).toBeLessThan(two.events.length);
  });

  it("starts after what is known already, and ends at once when that is all", async () => {
    const task = await runningTask(ada);
    await task.say("a");
    await task.finish();
    const all = watch();
    ada.client.subscribeTask(task.task_id, all.options);
    await all.ended;
    const rest = watch();
    ada.client.subscribeTask(task.task_id, { ...rest.options, afterSeq: 2 });
    await rest.ended;
    expect(rest.events).toEqual(all.events.slice(2));
    const nothing = watch();
    ada.client.subscribeTask(task.task_id, { ...nothing.options, afterSeq: all.events.length });
    expect(await nothing.ended).toBe("completed");
    expect(nothing.events).toEqual([]);
  });

  it("fails for a task that is not there, and leaves the others alone", async () => {
    const task = await runningTask(ada);
    const good = watch();
    const bad = watch();
    ada.client.subscribeTask(task.task_id, good.options);
    ada.client.subscribeTask("tsk_none", bad.options);
    await expect(bad.ended).rejects.toMatchObject({ code: "NotFound" });
    await task.finish();
    expect(await good.ended).toBe("completed");
  });

  it("takes a fresh token when the old one is refused, and gives up when there is none", async () => {
    const user = await server.user();
    const task = await runningTask(user);
    let token = user.token;
    const client = createClient({ baseUrl: server.url, getToken: () => token });
    const { ended, options, events } = watch();
    client.subscribeTask(task.task_id, options);
    await expect.poll(() => events.length).toBeGreaterThan(0);
    const version = await bumpTokenVersion(server.test.database.db, user.id);
    server.invalidate(user.id);
    const subject = {
      id: user.id,
      username: user.username,
      role: "developer" as const,
      token_version: version,
    };
    token = (await server.accessTokens.issue(subject)).token;
    const [socket] = server.app.websocketServer.clients;
    socket?.close(4401, "revoked");
    await task.finish();
    expect(await ended).toBe("completed");

    const dead = watch();
    createClient({ baseUrl: server.url, token: user.token }).subscribeTask(task.task_id, dead.options);
    await expect(dead.ended).rejects.toMatchObject({ code: "Unauthenticated" });
    const nameless = watch();
    const stranger = createClient({ baseUrl: server.url });
    stranger.subscribeTask(task.task_id, nameless.options);
    await expect(nameless.ended).rejects.toMatchObject({ code: "Unauthenticated" });
  }, 30_000);

  it("notices a connection that was cut without a word, and keeps one that is only quiet", async () => {
    const proxy = await proxyTo(server.url);
    const task = await runningTask(ada);
    const events = new TaskEvents({ baseUrl: proxy.url, WebSocket, token: () => ada.token, silenceMs: 400 });
    const { connections, ended, options, events: seen } = watch();
    events.subscribe(task.task_id, options);
    await expect.poll(() => seen.length).toBeGreaterThan(0);
    await sleep(1200);
    expect(connections).toEqual([true]);
    proxy.swallow();
    await expect.poll(() => connections, { timeout: 30_000 }).toEqual([true, false, true]);
    await task.finish();
    expect(await ended).toBe("completed");
    proxy.close();
  });

  it("waits for a server that is away", async () => {
    const proxy = await proxyTo(server.url);
    const task = await runningTask(ada);
    proxy.refuse = true;
    const client = createClient({ baseUrl: proxy.url, token: ada.token });
    const { ended, options } = watch();
    client.subscribeTask(task.task_id, options);
    await sleep(600);
    proxy.refuse = false;
    await task.finish();
    expect(await ended).toBe("completed");
    proxy.close();
  });

  it("close ends everything without a word", async () => {
    const task = await runningTask(ada);
    const client = createClient({ baseUrl: server.url, token: ada.token });
    const { events, options } = watch();
    client.subscribeTask(task.task_id, options);
    await expect.poll(() => events.length).toBeGreaterThan(0);
    client.close();
    const before = events.length;
    await task.finish();
    await sleep(100);
    expect(events.length).toBe(before);
  });
});

describe("[US-2] signing in", () => {
  it("registers, logs in, and refreshes once for everybody who asks at the same time", async () => {
    await using accounts = await authServer({ CDS_ACCESS_TOKEN_SECONDS: "5" });
    const kept: (string | undefined)[] = [];
    const options = {
      baseUrl: accounts.url,
      onSession: (session?: { refresh_token: string }) => void kept.push(session?.refresh_token),
    };
    const auth = createAuth(options);
    expect(await auth.token()).toBeUndefined();
    await expect(auth.refresh()).rejects.toMatchObject({ code: "Unauthenticated" });
    const session = await auth.register("ada", "a long password");
    expect(session.user.username).toBe("ada");
    await expect(auth.login("ada", "wrong password")).rejects.toMatchObject({ code: "Unauthenticated" });
    // Five seconds are less than the margin, so that every use renews: one refresh for all of them.
    const tokens = await Promise.all(Array.from({ length: 10 }, () => auth.token()));
    expect(new Set(tokens).size).toBe(1);
    expect(kept).toHaveLength(2);
    const resumed = createAuth({ ...options, session: await auth.login("ada", "a long password") });
    expect(await resumed.token()).toEqual(expect.any(String));
    const stolen = createAuth({ ...options, session });
    await expect(stolen.refresh()).rejects.toMatchObject({ code: "Unauthenticated" });
    expect(kept.at(-1)).toBeUndefined();
    expect(await stolen.token()).toBeUndefined();
  });
});
