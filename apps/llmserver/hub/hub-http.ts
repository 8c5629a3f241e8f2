import { Agent, type buildConnector, type Dispatcher, request } from "undici";
import type { Config } from "#platform/config/config.ts";
import { parseForeignJson } from "#platform/json.ts";
import type { Log } from "#platform/log.ts";
import { orAborted } from "#platform/waiting.ts";
import { connector } from "../remote/connector.ts";
import { retryAfterSeconds } from "../remote/failures.ts";
import { downloadFailed, statusFailure } from "./failures.ts";

export type HubConfig = Config["hub"];

const MAX_REDIRECTS = 5;
const CONNECT_TIMEOUT_MS = 10_000;
const MAX_JSON_BYTES = 8 * 1024 * 1024;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

export interface HubRequest {
  method: "GET" | "POST";
  url: URL;
  headers?: Record<string, string>;
  body?: string;
  signal: AbortSignal;
}

export interface HubAnswer {
  status: number;
  headers: Dispatcher.ResponseData["headers"];
  body: Dispatcher.ResponseData["body"];
  /** What the hub itself said the file's sha256 is, when it sent us on to it. */
  linkedOid: string | undefined;
}

/**
 * Requests to a hub and to where it leads: every hop's scheme and host is checked against what is allowed, and its
 * address again when the connection is made. The token goes to the endpoint alone.
 */
export class HubHttp implements AsyncDisposable {
  readonly endpoint: URL;
  readonly #hub: HubConfig;
  readonly #log: Log;
  readonly #own: Agent;
  readonly #others: Agent;

  /** `connectElsewhere` makes the connections to other hosts than the endpoint. */
  constructor(
    hub: HubConfig,
    log: Log,
    connectElsewhere: buildConnector.connector = connector(CONNECT_TIMEOUT_MS, false),
  ) {
    this.endpoint = new URL(hub.endpoint);
    this.#hub = hub;
    this.#log = log;
    const agent = (connect: buildConnector.connector) =>
      new Agent({ connect, allowH2: false, pipelining: 1 });
    this.#own = agent(connector(CONNECT_TIMEOUT_MS, hub.endpointGiven));
    this.#others = agent(connectElsewhere);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#own.destroy(), this.#others.destroy()]);
  }

  /** An address below the endpoint; every part is encoded. */
  url(...parts: string[]): URL {
    const path = parts.map((part) => encodeURIComponent(part)).join("/");
    return new URL(`${this.#hub.endpoint}/${path}`);
  }

  /**
   * Send a request and follow where it leads, five times at most. The answer's body is the caller's to read or end.
   * @throws AppError DownloadFailed when it leads where it must not; what the network throws; the signal's reason.
   */
  async send(what: HubRequest): Promise<HubAnswer> {
    let { url, method } = what;
    let linkedOid: string | undefined;
    for (let hop = 0; hop <= MAX_REDIRECTS; hop += 1) {
      this.#checkHop(url);
      const response = await this.#request({ ...what, url, method });
      const { statusCode: status, headers, body } = response;
      if (this.#isOwn(url)) linkedOid = sha256In(headers["x-linked-etag"]) ?? linkedOid;
      if (!REDIRECTS.has(status)) return { status, headers, body, linkedOid };
      discard(body);
      url = nextUrl(headers.location, url);
      if (status < 307) method = "GET";
    }
    throw downloadFailed(`The model hub redirected more than ${MAX_REDIRECTS} times.`);
  }

  /** The answer to a question of the hub's interface, with the address of its next page. */
  async json(what: HubRequest): Promise<{ value: unknown; next: URL | undefined }> {
    const answer = await this.send(what);
    if (answer.status !== 200) throw refused(answer);
    const text = await readLimited(answer.body);
    try {
      return { value: parseForeignJson(text), next: this.#nextPage(answer.headers.link) };
    } catch (error) {
      const hint = "HF_ENDPOINT may lead to something else, a sign-in page for instance.";
      throw downloadFailed("The model hub's answer is not JSON.", hint, error);
    }
  }

  #isOwn(url: URL): boolean {
    return url.origin === this.endpoint.origin;
  }

  #checkHop(url: URL): void {
    const schemes = this.endpoint.protocol === "http:" ? ["http:", "https:"] : ["https:"];
    const wrong =
      (!schemes.includes(url.protocol) && "it is not https") ||
      (url.username + url.password !== "" && "its address holds a user name") ||
      (!this.#isAllowedHost(url.hostname) && "its host is none of those allowed");
    if (!wrong) return;
    // The host may be what somebody wants to learn about this network: the operator's log alone has it.
    this.#log.warn({ host: url.host, wrong }, "a redirect of the model hub was not followed");
    throw downloadFailed(
      `The model hub redirects to where this server does not follow: ${wrong}.`,
      "The server's log names the host; CDS_MODEL_HOSTS can allow it.",
    );
  }

  #isAllowedHost(host: string): boolean {
    return [this.endpoint.hostname, ...this.#hub.allowedHosts].some((allowed) =>
      allowed.startsWith("*.")
        ? host.endsWith(allowed.slice(1).toLowerCase())
        : host === allowed.toLowerCase(),
    );
  }

  async #request({ url, method, headers, body, signal }: HubRequest): Promise<Dispatcher.ResponseData> {
    const own = this.#isOwn(url);
    const { token } = this.#hub;
    const response = request(url, {
      dispatcher: own ? this.#own : this.#others,
      method,
      headers: {
        ...headers,
        "accept-encoding": "identity",
        "user-agent": "cyberdevstudio",
        ...(own && token !== undefined ? { authorization: `Bearer ${token}` } : {}),
      },
      body: method === "POST" ? (body ?? null) : null,
      signal,
      // The attempt's own deadline sees to silence.
      headersTimeout: 0,
      bodyTimeout: 0,
    });
    // undici notices an abort only once it is connected; whoever cancels does not wait for that.
    return await orAborted(response, signal);
  }

  /** Pages are followed within the endpoint only. */
  #nextPage(link: unknown): URL | undefined {
    const target = typeof link === "string" ? /<([^>]+)>;\s*rel="?next"?/.exec(link)?.[1] : undefined;
    if (target === undefined || !URL.canParse(target, this.endpoint)) return undefined;
    const url = new URL(target, this.endpoint);
    return this.#isOwn(url) ? url : undefined;
  }
}

/** What an answer that is not wanted fails with; its body is let go. */
export function refused({ status, headers, body }: HubAnswer): Error {
  discard(body);
  return statusFailure(status, retryAfterSeconds(headers["retry-after"]));
}

/** Nothing more is wanted of an answer. */
export function discard(body: HubAnswer["body"]): void {
  // Its error, if it has one, has nobody to go to.
  body.on("error", () => undefined);
  body.destroy();
}

function nextUrl(location: unknown, from: URL): URL {
  if (typeof location !== "string" || !URL.canParse(location, from)) {
    throw downloadFailed("The model hub redirects to nowhere.");
  }
  return new URL(location, from);
}

function sha256In(etag: unknown): string | undefined {
  return typeof etag === "string" ? /^(?:W\/)?"?([0-9a-f]{64})"?$/.exec(etag)?.[1] : undefined;
}

async function readLimited(body: HubAnswer["body"]): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_JSON_BYTES) throw downloadFailed("The model hub's answer is too large.");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
