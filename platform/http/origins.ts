/** Which web pages may call: our own addresses on loopback, and those a person allowed. Never all. */
export class Origins {
  readonly #allowed: Set<string>;

  constructor(allowed: readonly string[] = []) {
    this.#allowed = new Set(allowed.map(normalise));
  }

  /** One of our own servers listens here; `host` is the address it was bound to. */
  addOwn(port: number, host?: string): void {
    const names = ["127.0.0.1", "localhost", "[::1]"];
    if (host !== undefined && !["0.0.0.0", "::"].includes(host)) {
      names.push(host.includes(":") ? `[${host}]` : host);
    }
    for (const name of names) this.#allowed.add(normalise(`http://${name}:${port}`));
  }

  allows(origin: string): boolean {
    return this.#allowed.has(normalise(origin));
  }

  /**
   * Whether a request, as a WebSocket's, may go ahead: no browser (no Origin), an allowed page, or a page
   * of the very host it asks.
   */
  allowsRequest(origin: string | undefined, host: string | undefined): boolean {
    if (origin === undefined || this.allows(origin)) return true;
    return host !== undefined && URL.canParse(origin) && new URL(origin).host === host.toLowerCase();
  }
}

/** `HTTP://Example.com:80/` and `http://example.com` are one origin; "null" and garbage stay what they are. */
function normalise(origin: string): string {
  return URL.canParse(origin) ? new URL(origin).origin : origin;
}
