import OpenAI from "openai";
import PocketBase, { ClientResponseError } from "pocketbase";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ScriptedProvider, startScriptedProvider } from "../support/provider.ts";
import { startTestStudio, type TestStudio, type TestUser } from "../support/studio.ts";

describe("clients of others", () => {
  let studio: TestStudio;
  let provider: ScriptedProvider;

  beforeAll(async () => {
    provider = await startScriptedProvider();
    studio = await startTestStudio({ OPENAI_BASE_URL: provider.baseUrl, OPENAI_API_KEY: "the-servers-key" });
  }, 120_000);

  afterAll(async () => {
    await studio?.[Symbol.asyncDispose]();
    await provider?.close();
  }, 60_000);

  const refused = (status: number) => expect.objectContaining({ constructor: ClientResponseError, status });

  describe("pocketbase", () => {
    let user: TestUser;
    let pb: PocketBase;

    beforeAll(async () => {
      user = await studio.user("müller@example.org");
      pb = new PocketBase(studio.url);
    });

    it("[OC-4] signs in, refreshes and reads its own record", async () => {
      const { token, record } = await pb
        .collection("users")
        .authWithPassword(user.username, `password of ${user.username}`);
      expect(pb.authStore.isValid).toBe(true);
      expect(record).toMatchObject({
        id: user.session.user.id,
        email: user.username,
        collectionName: "users",
      });
      const refreshed = await pb.collection("users").authRefresh();
      expect(refreshed.record.id).toBe(record.id);
      expect(token).not.toBe("");
      const own = await pb.collection("users").getOne(record.id);
      expect(own.username).toBe(user.username);
      expect((await pb.collection("users").getFullList()).map((each) => each.id)).toEqual([record.id]);
    });

    it("[OC-4] writes a provider key and never shows it", async () => {
      const id = pb.authStore.record?.id ?? "";
      const updated = await pb.collection("users").update(id, { api_key: "sk-written-never-read" });
      expect(JSON.stringify(updated)).not.toContain("sk-written");
      expect(updated.api_key).toBeUndefined();
      expect(await user.client.call("provider.get", {})).toMatchObject({ has_api_key: true, source: "user" });
      await pb.collection("users").update(id, { api_key: "" });
      expect(await user.client.call("provider.get", {})).toMatchObject({
        has_api_key: false,
        source: "server",
      });
    });

    it("[OC-4] is refused on others' records, on wrong passwords and without a token", async () => {
      const other = studio.admin.session.user.id;
      await expect(pb.collection("users").getOne(other)).rejects.toEqual(refused(404));
      await expect(pb.collection("users").update(other, { api_key: "x" })).rejects.toEqual(refused(404));
      const stranger = new PocketBase(studio.url);
      await expect(stranger.collection("users").authWithPassword(user.username, "wrong")).rejects.toEqual(
        refused(400),
      );
      await expect(stranger.collection("users").getOne(other)).rejects.toEqual(refused(401));
      stranger.authStore.save("forged.token.here", null);
      await expect(stranger.collection("users").authRefresh()).rejects.toEqual(refused(401));
    });

    it("registers, and names the field that is wrong", async () => {
      const stranger = new PocketBase(studio.url);
      const wanted = { email: "neu@example.org", password: "lang genug", passwordConfirm: "lang genug" };
      expect((await stranger.collection("users").create(wanted)).email).toBe("neu@example.org");
      await expect(stranger.collection("users").create(wanted)).rejects.toMatchObject({
        status: 400,
        response: { data: { username: { code: "validation_not_unique" } } },
      });
      await expect(
        stranger.collection("users").create({ ...wanted, passwordConfirm: "anders" }),
      ).rejects.toMatchObject({ response: { data: { passwordConfirm: { message: expect.any(String) } } } });
      await expect(
        stranger.collection("users").create({ ...wanted, username: "neu", email: "anders@example.org" }),
      ).rejects.toMatchObject({
        status: 400,
        response: { data: { email: { message: expect.any(String) } } },
      });
      expect((await stranger.health.check()).code).toBe(200);
    });

    it("changes its own password with the old one only", async () => {
      const id = pb.authStore.record?.id ?? "";
      const passwords = { password: "ein neues, langes", passwordConfirm: "ein neues, langes" };
      await expect(
        pb.collection("users").update(id, { ...passwords, oldPassword: "falsch" }),
      ).rejects.toEqual(refused(400));
      await pb.collection("users").update(id, { ...passwords, oldPassword: `password of ${user.username}` });
      await pb.collection("users").authWithPassword(user.username, passwords.password);
    });
  });

  describe("the OpenCode gateway", () => {
    const stream = (user: TestUser | undefined, query: string, signal?: AbortSignal) =>
      fetch(`${studio.url}/opencode/stream${query}`, {
        headers: user === undefined ? {} : { authorization: `Bearer ${user.session.access_token}` },
        ...(signal === undefined ? {} : { signal }),
      });

    it("[OC-3] answers /test and tells its health", async () => {
      expect(await (await fetch(`${studio.url}/test`)).json()).toMatchObject({ status: "ok" });
      const health = await fetch(`${studio.studio.urls.api}/opencode/health`);
      expect(health.status).toBe(200);
      expect(Object.keys(((await health.json()) as { checks: object }).checks)).toEqual([
        "database",
        "sandbox",
        "opencode",
      ]);
    });

    it("[OC-2] [OC-1] streams a run as plain text to its last line", async () => {
      const user = await studio.user("grete");
      const response = await stream(user, `?model=demo&prompt=${encodeURIComponent("Grüße bitte")}`);
      expect(response.status).toBe(200);
      expect(response.headers.get("content-type")).toBe("text/plain; charset=utf-8");
      const text = await response.text();
      expect(text.trimEnd().endsWith("[✔ User grete - Fertig!]")).toBe(true);
      const { projects } = await user.client.call("project.list", {});
      expect(projects.map((project) => project.name)).toEqual(["OpenCode"]);
    });

    it("[OC-2] refuses a missing prompt and a missing token", async () => {
      const user = await studio.user("hans");
      for (const query of ["", "?prompt=", "?prompt=%20&model=demo"]) {
        const response = await stream(user, query);
        expect(response.status).toBe(400);
        expect(await response.text()).toContain("Prompt ist erforderlich");
      }
      expect((await stream(undefined, "?prompt=x")).status).toBe(401);
      expect((await stream(user, `?prompt=x&token=${user.session.access_token}`)).status).toBe(400);
    });

    it("[OC-7] passes errors on in the stream and lives on", async () => {
      const user = await studio.user("ida");
      provider.script({ key: "the-servers-key", prompt: "please fail", reply: { fault: "401" } });
      const text = await (await stream(user, "?model=scripted&prompt=please%20fail")).text();
      expect(text).toMatch(/^\[ERROR\] /m);
      expect(text).not.toContain("the-servers-key");
      expect((await fetch(`${studio.url}/test`)).status).toBe(200);
    });

    it("[OC-7] ends the run of a client that goes away", async () => {
      const user = await studio.user("jan");
      const gone = new AbortController();
      const response = await stream(
        user,
        `?model=scripted&prompt=${encodeURIComponent("[[delay:500]] slowly")}`,
        gone.signal,
      );
      const before = provider.requests.length;
      await response.body?.getReader().read();
      await provider.waitForRequests(before, 30_000);
      gone.abort();
      await expect
        .poll(async () => (await user.client.call("agent.history", {})).tasks[0]?.state, { timeout: 15_000 })
        .toBe("cancelled");
    });
  });

  describe("openai", () => {
    const openai = (apiKey: string) =>
      new OpenAI({ baseURL: `${studio.studio.urls.llm}/v1`, apiKey, maxRetries: 0 });

    it("[LLM-4] streams with an API key of the studio, and the tokens are booked", async () => {
      const user = await studio.user("karl");
      const answer = await fetch(`${studio.url}/auth/api-key/generate`, {
        method: "POST",
        headers: { authorization: `Bearer ${user.session.access_token}` },
      });
      const { api_key } = (await answer.json()) as { api_key: string };
      const events = await openai(api_key).chat.completions.create({
        model: "scripted",
        stream: true,
        stream_options: { include_usage: true },
        messages: [{ role: "user", content: "Hallo" }],
      });
      let text = "";
      let total = 0;
      for await (const event of events) {
        text += event.choices[0]?.delta.content ?? "";
        total = event.usage?.total_tokens ?? total;
      }
      expect(text).not.toBe("");
      const { entries } = await user.client.call("billing.entries", {});
      const settled = entries.filter((entry) => entry.kind === "settle");
      expect(settled).toHaveLength(1);
      expect(total).toBeGreaterThan(0);
    });

    it("answers an empty balance with 402 in the OpenAI envelope", async () => {
      const user = await studio.user("lena");
      const balance = await fetch(`${studio.url}/admin/users/${user.session.user.id}/balance`, {
        method: "PUT",
        headers: {
          authorization: `Bearer ${studio.admin.session.access_token}`,
          "content-type": "application/json",
        },
        body: JSON.stringify({ balance_microcredits: 0 }),
      });
      expect(balance.status).toBe(200);
      await expect(
        openai(user.session.access_token).chat.completions.create({
          model: "scripted",
          messages: [{ role: "user", content: "Hallo" }],
        }),
      ).rejects.toMatchObject({ status: 402, error: { type: "insufficient_quota" } });
      const { id } = await user.client.call("project.create", { name: "arm" });
      await expect(
        user.client.call("agent.dispatch", {
          agent: "CodeAgent",
          project_id: id,
          prompt: "x",
          model: "scripted",
        }),
      ).rejects.toMatchObject({ code: "InsufficientBalance" });
    });
  });
});
