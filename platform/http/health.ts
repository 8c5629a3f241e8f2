import { setTimeout as sleep } from "node:timers/promises";
import type { FastifyInstance } from "fastify";
import { AppError } from "#schemas";

/** Resolves (with a word about the state, if any) when the part can serve, rejects when not. */
export type HealthCheck = () => Promise<string | undefined>;

export interface HealthReport {
  status: "ok" | "unavailable";
  checks: Record<string, { ok: boolean; detail?: string }>;
}

/** What must work for a server to serve. Checks are bounded in time and asked at most once a second. */
export class HealthRegistry {
  readonly #checks = new Map<string, HealthCheck>();
  readonly #timeoutMs: number;
  readonly #cacheMs: number;
  #latest: { at: number; report: Promise<HealthReport> } | undefined;

  constructor(options: { timeoutMs?: number; cacheMs?: number } = {}) {
    this.#timeoutMs = options.timeoutMs ?? 3000;
    this.#cacheMs = options.cacheMs ?? 1000;
  }

  add(name: string, check: HealthCheck): void {
    this.#checks.set(name, check);
  }

  report(): Promise<HealthReport> {
    const now = performance.now();
    if (this.#latest === undefined || now - this.#latest.at >= this.#cacheMs) {
      this.#latest = { at: now, report: this.#ask() };
    }
    return this.#latest.report;
  }

  async #ask(): Promise<HealthReport> {
    const entries = await Promise.all(
      [...this.#checks].map(async ([name, check]) => [name, await this.#askOne(check)] as const),
    );
    const ok = entries.every(([, result]) => result.ok);
    return { status: ok ? "ok" : "unavailable", checks: Object.fromEntries(entries) };
  }

  async #askOne(check: HealthCheck): Promise<{ ok: boolean; detail?: string }> {
    const timer = new AbortController();
    try {
      const late = sleep(this.#timeoutMs, undefined, { signal: timer.signal }).then(() => {
        throw new AppError("Timeout", `no answer within ${this.#timeoutMs} ms`);
      });
      late.catch(() => undefined);
      const detail = await Promise.race([check(), late]);
      return detail === undefined ? { ok: true } : { ok: true, detail };
    } catch (error) {
      // Anybody may ask: only what was written for callers is shown, not an address or a path.
      return { ok: false, detail: error instanceof AppError ? error.message : "failed" };
    } finally {
      timer.abort();
    }
  }
}

/** `GET /health`: 200 when every check passes, else 503; both with the list. */
export function registerHealth(app: FastifyInstance, health: HealthRegistry): void {
  app.get("/health", { logLevel: "warn" }, async (_request, reply) => {
    const report = await health.report();
    return reply
      .code(report.status === "ok" ? 200 : 503)
      .header("cache-control", "no-store")
      .send(report);
  });
}
