/** How long a sequence that is neither waiting nor decoding may hold the others up, ms: it is busy in JavaScript. */
const STRAGGLER_MS = 10;
/** Time prompts may add to a step, ms: what a cancel waits for. */
const STEP_TARGET_MS = 600;
/** The same while more sequences are generating than wait for their first token, ms: the gap in their answers. */
const SHARED_STEP_TARGET_MS = 300;
/** Prompt tokens of one sequence in one step; fewer cost more in overhead than they spare in waiting. */
const MIN_CHUNK = 16;
const FIRST_BUDGET = 64;
const MAX_BUDGET = 256;

/** One who decodes: a choice of a request, on a sequence of its own. */
export type Player = object;

export interface ConductorOptions {
  /** Tokens one step can hold. */
  batchSize: number;
  sequences: number;
  stragglerMs?: number;
}

interface Turn {
  wanted: number;
  start: (granted: number) => void;
}

/**
 * Lets all sequences decode in step. Left to themselves they join llama.cpp's batches as they happen to be ready, and a
 * batch that starts before the last is ready leaves it out, which wastes half of the machine. Steps also end: between two of
 * them the context can be changed by whoever must, who would otherwise wait for as long as anybody generates.
 *
 * Prompts are evaluated in chunks that fit into a step of bounded time, for a batch once begun cannot be stopped.
 */
export class Conductor {
  readonly #present = new Set<Player>();
  readonly #waiting = new Map<Player, Turn>();
  readonly #decoding = new Set<Player>();
  readonly #lastServed = new Map<Player, number>();
  readonly #budgetLimit: number;
  readonly #stragglerMs: number;
  #straggling: NodeJS.Timeout | undefined;
  #step = { number: 0, startedAt: 0, prompt: 0, generated: 0 };
  /** Measured, ms; undefined until the first chunk is through. */
  #msPerPromptToken: number | undefined;
  /** A step without prompts, ms. */
  #msGenerating = 0;

  constructor({ batchSize, sequences, stragglerMs = STRAGGLER_MS }: ConductorOptions) {
    this.#stragglerMs = stragglerMs;
    this.#budgetLimit = Math.max(MIN_CHUNK, Math.min(MAX_BUDGET, batchSize - sequences));
  }

  join(player: Player): void {
    this.#present.add(player);
  }

  /** Gives up the turn it waits for, if it does: it gets 0 tokens at once. */
  abandon(player: Player): void {
    const turn = this.#waiting.get(player);
    if (!this.#waiting.delete(player)) return;
    turn?.start(0);
    this.#proceed();
  }

  /** Idempotent. */
  leave(player: Player): void {
    this.#present.delete(player);
    this.abandon(player);
    this.#lastServed.delete(player);
    if (this.#decoding.delete(player)) this.#stepMayHaveEnded();
    this.#proceed();
  }

  /** Resolves when this player may decode, with how many of the tokens it has; `done` must follow, unless it is 0. */
  turn(player: Player, wanted: number): Promise<number> {
    return new Promise((start) => {
      this.#waiting.set(player, { wanted, start });
      this.#proceed();
    });
  }

  done(player: Player): void {
    if (!this.#decoding.delete(player)) return;
    this.#stepMayHaveEnded();
    this.#proceed();
  }

  #proceed(): void {
    if (this.#decoding.size > 0 || this.#waiting.size === 0) return;
    if (this.#waiting.size >= this.#present.size) this.#start();
    else {
      this.#straggling ??= setTimeout(() => {
        this.#straggling = undefined;
        if (this.#decoding.size === 0 && this.#waiting.size > 0) this.#start();
      }, this.#stragglerMs);
    }
  }

  #start(): void {
    clearTimeout(this.#straggling);
    this.#straggling = undefined;
    const grants = this.#share();
    this.#step = {
      number: this.#step.number + 1,
      startedAt: performance.now(),
      prompt: grants.reduce((sum, { tokens }) => sum + (tokens > 1 ? tokens : 0), 0),
      generated: grants.filter(({ tokens }) => tokens === 1).length,
    };
    const starts = grants.map(({ player, tokens }) => {
      const start = this.#waiting.get(player)?.start;
      this.#waiting.delete(player);
      this.#decoding.add(player);
      this.#lastServed.set(player, this.#step.number);
      return () => start?.(tokens);
    });
    for (const start of starts) start();
  }

  /** Every generating sequence gets its token; the prompts share what a step has time for, the longest waiting first. */
  #share(): { player: Player; tokens: number }[] {
    const turns = [...this.#waiting].map(([player, { wanted }]) => ({ player, tokens: wanted }));
    const generating = turns.filter(({ tokens }) => tokens === 1);
    const prompts = turns
      .filter(({ tokens }) => tokens > 1)
      .sort((a, b) => (this.#lastServed.get(a.player) ?? 0) - (this.#lastServed.get(b.player) ?? 0));
    let budget = this.#budget(generating.length > prompts.length);
    const granted = prompts.flatMap(({ player, tokens }, index) => {
      const fair = Math.max(MIN_CHUNK, Math.floor(budget / (prompts.length - index)));
      const share = Math.min(tokens, fair, budget);
      if (share < Math.min(tokens, MIN_CHUNK)) return [];
      budget -= share;
      return [{ player, tokens: share }];
    });
    return [...generating, ...granted];
  }

  #budget(shared: boolean): number {
    const fitting =
      this.#msPerPromptToken === undefined
        ? FIRST_BUDGET
        : (shared ? SHARED_STEP_TARGET_MS : STEP_TARGET_MS) / this.#msPerPromptToken;
    return Math.round(Math.min(this.#budgetLimit, Math.max(MIN_CHUNK, fitting)));
  }

  #stepMayHaveEnded(): void {
    if (this.#decoding.size > 0) return;
    const { startedAt, prompt, generated } = this.#step;
    const took = performance.now() - startedAt;
    if (prompt === 0) this.#msGenerating = average(this.#msGenerating, took);
    if (prompt < MIN_CHUNK) return;
    const generating = generated === 0 ? 0 : Math.min(this.#msGenerating, took / 2);
    const measured = (took - generating) / prompt;
    this.#msPerPromptToken = average(this.#msPerPromptToken ?? measured, measured);
  }
}

/** Follows a machine that gets busy within a few steps, and is not thrown off by one. */
function average(before: number, now: number): number {
  return (before + now) / 2;
}
