import type { Lease, Renewed } from "#database/queue/index.ts";

interface Asked extends Lease, PromiseWithResolvers<Renewed> {}

export interface LeaseRenewalsOptions {
  /** How long others are waited for, ms; a small part of a lease. */
  readonly gatherMs: number;
  /** Renew all of them in one statement; those that somebody has at this moment are missing in the answer. */
  some(leases: readonly Lease[]): Promise<readonly (Lease & Renewed)[]>;
}

/** Renews leases together that are due at nearly the same time: one by one, a thousand tasks ask 600 times a second. */
export class LeaseRenewals {
  readonly #options: LeaseRenewalsOptions;
  #asked: Asked[] = [];

  constructor(options: LeaseRenewalsOptions) {
    this.#options = options;
  }

  /** Resolves when it is known; throws what the database does. */
  renew(task_id: string, attempt: number): Promise<Renewed> {
    const asked = { task_id, attempt, ...Promise.withResolvers<Renewed>() };
    this.#ask([asked]);
    return asked.promise;
  }

  #ask(more: readonly Asked[]): void {
    if (more.length === 0) return;
    if (this.#asked.length === 0) setTimeout(() => void this.#renewAll(), this.#options.gatherMs);
    this.#asked.push(...more);
  }

  async #renewAll(): Promise<void> {
    const all = this.#asked;
    this.#asked = [];
    try {
      const answers = await this.#options.some(all);
      const known = new Map(answers.map((answer) => [nameOf(answer), answer]));
      for (const asked of all) {
        const lease = known.get(nameOf(asked));
        if (lease !== undefined) asked.resolve(lease);
      }
      // Waiting for one of them would hold up the others. Somebody is writing to it just now.
      this.#ask(all.filter((asked) => !known.has(nameOf(asked))));
    } catch (error) {
      for (const { reject } of all) reject(error);
    }
  }
}

const nameOf = ({ task_id, attempt }: Lease) => `${task_id}/${attempt}`;
