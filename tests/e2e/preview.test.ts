import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { AGENT_SCRIPTS, scriptedReply } from "../support/agent-scripts.ts";
import { hasBrowser, launchBrowser, openPage, takeShot } from "../support/browser.ts";
import { type ScriptedProvider, startScriptedProvider } from "../support/provider.ts";
import { startTestStudio, type TestStudio, type TestUser } from "../support/studio.ts";
import { ended } from "../support/tasks.ts";

vi.setConfig({ expect: { poll: { timeout: 30_000 } } });

/** Long enough for every one of them to be tried. */
const ENOUGH_MS = 2000;

/** A page that tries to call home in every way a page has. */
const hostilePage = (home: string) => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Nice</title>
<meta http-equiv="refresh" content="1;url=${home}/refresh">
<link rel="stylesheet" href="${home}/style"><link rel="icon" href="${home}/icon"><link rel="prefetch" href="${home}/prefetch">
<style>@import "${home}/import"; body { background: url(${home}/background) } @font-face { font-family: f; src: url(${home}/font) } h1 { font-family: f; color: rgb(0, 100, 0) }</style>
</head><body onload="fetch('${home}/onload')"><h1>Harmless</h1><p id="state">still</p>
<img src="${home}/image" alt=""><img src="x:" onerror="fetch('${home}/onerror')" alt=""><iframe src="${home}/frame"></iframe>
<object data="${home}/object"></object><embed src="${home}/embed"><video src="${home}/video" autoplay></video>
<form action="${home}/form" method="post"><button autofocus>Go</button></form><a href="${home}/link" target="_top">Away</a>
<script>document.getElementById("state").textContent = "ran"; document.forms[0].submit(); location.href = "${home}/location";</script>
<script src="${home}/script"></script></body></html>`;

describe.skipIf(!hasBrowser)("[AG-1] pages are shown as they look, and can do nothing", () => {
  let studio: TestStudio;
  let provider: ScriptedProvider;
  let user: TestUser;
  let browser: Browser;
  let page: Page;
  let home: Server;
  let homeUrl: string;
  let calls: string[] = [];
  const errors: string[] = [];

  beforeAll(async () => {
    provider = await startScriptedProvider();
    studio = await startTestStudio({ CDS_PROVIDER_ALLOW_PRIVATE_HOSTS: "true" });
    user = await studio.user("dora");
    const settings = { base_url: provider.baseUrl, api_key: "sk-dora", models: ["scripted"] };
    await user.client.call("provider.set", settings);
    home = createServer((request, response) => {
      if (request.url === "/") {
        response.setHeader("content-type", "text/html").end(hostilePage(homeUrl));
        return;
      }
      calls.push(request.url ?? "");
      response.end();
    }).listen(0, "127.0.0.1");
    await once(home, "listening");
    homeUrl = `http://127.0.0.1:${(home.address() as AddressInfo).port}`;
    browser = await launchBrowser();
    page = await openPage(browser, errors);
    await page.goto(studio.url);
    await page.getByLabel("Name or e-mail address").fill("dora");
    await page.getByLabel("Password").fill("password of dora");
    await page.getByRole("button", { name: "Sign in", exact: true }).click();
    await page.getByTestId("username").waitFor();
  }, 180_000);

  afterAll(async () => {
    await browser?.close();
    home?.closeAllConnections();
    home?.close();
    await studio?.[Symbol.asyncDispose]();
    await provider?.close();
  }, 60_000);

  it("a proposal of DesignAgent's can be looked at before it is accepted", async () => {
    const { id } = await user.client.call("project.create", { name: "Proposals" });
    await user.client.call("project.file.save", { project_id: id, path: "README.md", content: "# Stats\n" });
    provider.script({ reply: scriptedReply(AGENT_SCRIPTS.DesignAgent?.accepted ?? []) });
    const { task_id } = await user.client.call("agent.dispatch", {
      ...{ agent: "DesignAgent", project_id: id, prompt: "Propose it.", model: "scripted" },
    });
    expect(await ended(user, task_id)).toMatchObject({ state: "completed" });
    await page.reload();
    await page.getByRole("button", { name: "Proposals" }).click();
    await page.getByText("Propose it.").first().click();
    const preview = page.frameLocator("iframe.preview");
    await preview.getByRole("heading", { name: "Stats" }).waitFor();
    await takeShot(page, "preview-1-change");
    await page.getByRole("button", { name: "Source" }).click();
    expect(await page.getByTestId("change").textContent()).toContain("<!doctype html>");
    await page.getByRole("button", { name: "Preview" }).click();
    await preview.getByText("Sum:").waitFor();
    // Nothing of it broke the page's own policy.
    expect(errors).toEqual([]);
  }, 120_000);

  it("whatever a page in a project holds, it runs nothing and calls nobody", async () => {
    // Anywhere else it does.
    const elsewhere = await browser.newPage();
    await elsewhere.goto(homeUrl).catch(() => undefined);
    await expect.poll(() => calls.length).toBeGreaterThan(5);
    await elsewhere.close();
    const { id } = await user.client.call("project.create", { name: "Hostile" });
    await user.client.call("project.file.save", {
      ...{ project_id: id, path: "nice.html", content: hostilePage(homeUrl) },
    });
    calls = [];
    await page.reload();
    await page.getByRole("button", { name: "Hostile" }).click();
    await page.getByRole("button", { name: "nice.html" }).click();
    await page.getByRole("button", { name: "Preview" }).click();
    const preview = page.frameLocator("iframe.preview");
    await preview.getByRole("heading", { name: "Harmless" }).waitFor();
    await preview.getByRole("link", { name: "Away" }).click();
    await preview.getByRole("button", { name: "Go" }).click();
    await sleep(ENOUGH_MS);
    await takeShot(page, "preview-2-hostile");
    expect(calls).toEqual([]);
    expect(page.url()).toContain(studio.url);
    expect(await preview.locator("#state").textContent()).toBe("still");
    // Its styles do show.
    const colour = await preview.locator("h1").evaluate((h1) => getComputedStyle(h1).color);
    expect(colour).toBe("rgb(0, 100, 0)");
  }, 120_000);
});
