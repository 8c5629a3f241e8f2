import { checkProject, type Verdict } from "#agents";
import type { Database } from "#database";
import { readTree } from "#database/projects/index.ts";
import type { Delta } from "#database/projects/types.ts";
import type { Config } from "#platform/config/config.ts";
import type { Sandboxes, Slot } from "#sandbox";
import { AppError } from "#schemas";
import { CheckTrees, checksPlace } from "#workspaces/checks.ts";
import { PerUser } from "../per-user.ts";
import { checkRoom } from "./workplace.ts";

const MAX_SHOWN_PROBLEMS = 5;
/** For a sandbox to become free, ms. */
const MAX_WAIT_MS = 60_000;

export interface LandingDeps {
  readonly database: Database;
  readonly config: Config;
  readonly sandboxes: Sandboxes;
}

/** What would become a project's next revision. */
export interface Merged {
  readonly project_id: string;
  /** The revision it would come after. */
  readonly head_revision: number;
  readonly files: readonly Delta[];
}

/**
 * Tries a merged tree before it becomes a revision: two changes that are each good can be bad together, and neither was
 * tried with the other.
 */
export class Landing {
  readonly #deps: LandingDeps;
  readonly #places = new PerUser();

  constructor(deps: LandingDeps) {
    this.#deps = deps;
  }

  /**
   * Run the project's own checks on it, and where they fail on the project as it is.
   * @throws AppError ResultInvalid (`details.checks` tells what failed), those of the sandbox.
   */
  async check(user_id: string, merged: Merged, signal: AbortSignal): Promise<void> {
    const { problems, checks } = await this.#judge(user_id, merged, signal);
    if (problems.length === 0) return;
    throw new AppError(
      "ResultInvalid",
      `Together with what the project has become, the change does not work: ${problems.slice(0, MAX_SHOWN_PROBLEMS).join(" ")}`,
      {
        checks: checks.filter(({ passed }) => !passed),
        current_revision: merged.head_revision,
        hint: "Nothing was changed. Have an agent mend it (change.resolve), or accept it all the same with force.",
      },
    );
  }

  /** The call has no time-out but its own parts'. @throws AppError Unavailable when all are in use for too long. */
  async #slot(signal: AbortSignal): Promise<Slot> {
    const patience = AbortSignal.timeout(MAX_WAIT_MS);
    try {
      return await this.#deps.sandboxes.slots.acquire(AbortSignal.any([signal, patience]));
    } catch (error) {
      if (signal.aborted || !patience.aborted) throw error;
      throw new AppError("Unavailable", "There is no sandbox free to try the change in.", {
        hint: "Nothing was changed. Try again when others' tasks have ended, or accept it untried with force.",
      });
    }
  }

  async #judge(user_id: string, merged: Merged, signal: AbortSignal): Promise<Verdict> {
    const { database, config, sandboxes } = this.#deps;
    const most = config.workbench.programsPerUser;
    if (this.#places.of(user_id) >= most) {
      throw new AppError("QuotaExceeded", `${most} of your changes are being checked already.`, {
        quota: "checks",
        limit: most,
        hint: "Wait until one of them is decided.",
      });
    }
    const leave = this.#places.take(user_id);
    try {
      await checkRoom(config);
      const tree = await readTree(database.db, merged.project_id, merged.head_revision);
      const slot = await this.#slot(signal);
      try {
        const place = checksPlace(database.db, config, { host: sandboxes, slot, signal });
        await using trees = new CheckTrees(place, tree, merged.files, merged.head_revision);
        return await checkProject(
          trees,
          merged.files.map(({ path }) => path),
        );
      } finally {
        await slot.release();
      }
    } finally {
      leave();
    }
  }
}
