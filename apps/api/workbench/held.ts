import { AppError } from "#schemas";
import { PerUser } from "../per-user.ts";

/** Whose something is, and of which project. */
interface Belonging {
  readonly user_id: string;
  readonly project_id?: string;
}

export interface HeldEntry<T> extends Belonging {
  readonly id: string;
  readonly value: T;
}

export interface HeldOptions {
  /** In the singular, for errors: "program". */
  readonly what: string;
  readonly perUser: number;
  /** What to do about the limit. */
  readonly hint: string;
}

/** What users have open, by id. Nobody finds another's; nobody opens more than their share. */
export class Held<T> {
  readonly #options: HeldOptions;
  readonly #entries = new Map<string, HeldEntry<T>>();
  readonly #taken = new PerUser();

  constructor(options: HeldOptions) {
    this.#options = options;
  }

  /** Take a place before anything is started. @returns gives it back, once. @throws AppError QuotaExceeded. */
  reserve(user_id: string): () => void {
    const { what, perUser, hint } = this.#options;
    const taken = this.#taken.of(user_id);
    if (taken >= perUser) {
      throw new AppError("QuotaExceeded", `You have ${taken} ${what}s open; that is the limit per user.`, {
        limit: perUser,
        hint,
      });
    }
    return this.#taken.take(user_id);
  }

  add(entry: HeldEntry<T>): void {
    this.#entries.set(entry.id, entry);
  }

  delete(id: string): void {
    this.#entries.delete(id);
  }

  /** @throws AppError NotFound, also for somebody else's. */
  find(user_id: string, id: string): HeldEntry<T> {
    const entry = this.#entries.get(id);
    if (entry !== undefined && entry.user_id === user_id) return entry;
    throw new AppError("NotFound", `There is no ${this.#options.what} ${JSON.stringify(id)}.`, {
      hint: "It may have ended already.",
    });
  }

  /** A user's, oldest first. */
  of(user_id: string, project_id?: string): HeldEntry<T>[] {
    return [...this.#entries.values()].filter(
      (entry) => entry.user_id === user_id && (project_id === undefined || entry.project_id === project_id),
    );
  }

  all(): HeldEntry<T>[] {
    return [...this.#entries.values()];
  }
}
