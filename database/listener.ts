import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { Log } from "#platform/log.ts";

const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 5000;
/** A connection cut off without a word is noticed after this time at the latest. */
const PROBE_MS = 20_000;
const PROBE_TIMEOUT_MS = 5000;
const CHANNEL = /^[a-z_][a-z0-9_]{0,62}$/;

export interface Listener {
  onNotify(payload: string): void;
  /** Notifications may have been missed: read the rows again. */
  onReconnect?(): void;
}

/**
 * LISTEN on one connection of its own, outside the pool (a pooler in transaction mode would lose it).
 * Connects on first use, reconnects with back-off for as long as anybody listens.
 */
export class NotificationClient implements AsyncDisposable {
  readonly #config: pg.ClientConfig;
  readonly #log: Log;
  readonly #listeners = new Map<string, Set<Listener>>();
  readonly #closing = new AbortController();
  #client: pg.Client | undefined;
  #connecting: Promise<void> | undefined;
  #probe: NodeJS.Timeout | undefined;
  #lost = false;

  constructor(config: pg.ClientConfig, log: Log) {
    this.#config = config;
    this.#log = log;
  }

  /**
   * Resolves once the server confirmed the LISTEN (or, while the database is away, as soon as it is back).
   * @returns ends this subscription.
   */
  async listen(channel: string, listener: Listener): Promise<() => Promise<void>> {
    if (!CHANNEL.test(channel)) throw new RangeError(`Not a channel name: ${channel}`);
    const known = this.#listeners.get(channel);
    const listeners = known ?? new Set<Listener>();
    this.#listeners.set(channel, listeners);
    listeners.add(listener);
    if (this.#client === undefined) await this.#connect();
    else if (known === undefined) await this.#run(`LISTEN ${channel}`);
    return async () => {
      if (!listeners.delete(listener) || listeners.size > 0 || this.#listeners.get(channel) !== listeners)
        return;
      this.#listeners.delete(channel);
      if (this.#client !== undefined) await this.#run(`UNLISTEN ${channel}`);
    };
  }

  async close(): Promise<void> {
    this.#closing.abort();
    clearInterval(this.#probe);
    this.#listeners.clear();
    const client = this.#client;
    this.#client = undefined;
    await client?.end();
    await this.#connecting;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** A statement that fails means the connection is gone; the reconnect then issues every LISTEN again. */
  async #run(statement: string): Promise<void> {
    const client = this.#client;
    try {
      await client?.query(statement);
    } catch (error) {
      if (client !== undefined) this.#drop(client, error);
      await this.#connecting;
    }
  }

  #connect(): Promise<void> {
    this.#connecting ??= this.#connectUntilUp().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  async #connectUntilUp(): Promise<void> {
    for (let delay = FIRST_DELAY_MS; !this.#closing.signal.aborted; ) {
      const client = new pg.Client({ ...this.#config, application_name: "cyberdevstudio listen" });
      client.on("error", (error) => this.#drop(client, error));
      client.on("end", () => this.#drop(client, new Error("Connection ended")));
      client.on("notification", ({ channel, payload }) => this.#deliver(channel, payload ?? ""));
      try {
        await client.connect();
        for (const channel of this.#listeners.keys()) await client.query(`LISTEN ${channel}`);
        if (this.#closing.signal.aborted) return await client.end();
        this.#up(client);
        return;
      } catch (error) {
        await client.end().catch(() => undefined);
        this.#lost = true;
        this.#log.warn(
          { reason: reasonOf(error), delay_ms: delay },
          "cannot listen to the database, trying again",
        );
        await sleep(delay, undefined, { signal: this.#closing.signal }).catch(() => undefined);
        delay = Math.min(delay * 2, LONGEST_DELAY_MS);
      }
    }
  }

  #up(client: pg.Client): void {
    this.#client = client;
    clearInterval(this.#probe);
    this.#probe = setInterval(() => {
      probe(client).catch((error) => this.#drop(client, error));
    }, PROBE_MS);
    this.#probe.unref();
    if (!this.#lost) return;
    this.#lost = false;
    for (const listener of [...this.#listeners.values()].flatMap((set) => [...set])) {
      this.#safely(() => listener.onReconnect?.());
    }
  }

  #drop(client: pg.Client, error: unknown): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    this.#lost = true;
    clearInterval(this.#probe);
    client.end().catch(() => undefined);
    if (this.#closing.signal.aborted) return;
    this.#log.warn({ reason: reasonOf(error) }, "lost the database connection that listens");
    void this.#connect();
  }

  #deliver(channel: string, payload: string): void {
    for (const listener of this.#listeners.get(channel) ?? []) this.#safely(() => listener.onNotify(payload));
  }

  #safely(call: () => void): void {
    try {
      call();
    } catch (error) {
      this.#log.error({ err: error }, "a listener to the database failed");
    }
  }
}

async function probe(client: pg.Client): Promise<void> {
  const late = sleep(PROBE_TIMEOUT_MS, undefined, { ref: false }).then(() => {
    throw new Error("The database connection that listens does not answer");
  });
  await Promise.race([client.query("SELECT 1"), late]);
}

/** Not the error itself: what pg hangs on it is a whole connection, printed over a page. */
function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
