import { stat } from "node:fs/promises";
import { within } from "#platform/waiting.ts";
import type { SandboxLog } from "../types.ts";
import type { Ages } from "./ages.ts";
import type { Remover } from "./removal.ts";
import type { Candidate, CleanSource, RemoveReason } from "./source.ts";

const DISK_READ_MS = 5000;

/** What a round goes by; see `JanitorOptions`. */
export interface Rules {
  places: readonly string[];
  log: SandboxLog;
  maxAgeMs: number;
  diskThreshold: number;
  diskTarget: number;
  removalMs: number;
  disk: (path: string) => Promise<number>;
}

export type Occasion = "start" | "timer" | "asked" | "shutdown";

/** What one round did. */
export interface JanitorReport {
  occasion: Occasion;
  /** ms since 1970. */
  startedAt: number;
  tookMs: number;
  removed: number;
  /** Removals that failed or took too long, and sources that could not be asked. */
  failed: number;
  /** Passed over because somebody uses it again, or because an earlier removal of it still hangs. */
  busy: number;
  /** As far as their sources knew. */
  freedBytes: number;
  byReason: Record<RemoveReason, number>;
  /** Used share of the fullest place, 0..1; null where none could be read. */
  diskBefore: number | null;
  diskAfter: number | null;
}

interface Item {
  source: CleanSource;
  candidate: Candidate;
  key: string;
  idleSince: number;
}

export interface RoundInput {
  occasion: Occasion;
  rules: Rules;
  remover: Remover;
  ages: Ages;
  /** ms that are left for this round; 0 or less: it ends after the removal it is at. */
  left: () => number;
}

/** Once through everything: what is orphaned, what is old, and what a full disk wants to be rid of. */
export class Round {
  readonly #input: RoundInput;
  readonly #report: JanitorReport;

  constructor(input: RoundInput) {
    this.#input = input;
    const { occasion } = input;
    this.#report = {
      ...{ occasion, startedAt: Date.now(), tookMs: 0, removed: 0, failed: 0, busy: 0, freedBytes: 0 },
      byReason: { orphan: 0, age: 0, disk: 0, shutdown: 0 },
      ...{ diskBefore: null, diskAfter: null },
    };
  }

  async run(sources: readonly CleanSource[]): Promise<JanitorReport> {
    const report = this.#report;
    const from = performance.now();
    report.diskBefore = await this.#fullest();
    const idle = await this.#clearOrphans(sources);
    this.#input.ages.keep(idle);
    idle.sort((a, b) => a.idleSince - b.idleSince);
    const young = await this.#clearOld(idle);
    await this.#clearForRoom(young);
    report.diskAfter = await this.#fullest();
    report.tookMs = Math.round(performance.now() - from);
    return report;
  }

  /** Source by source, as what one frees the next may find; answers what has an owner. */
  async #clearOrphans(sources: readonly CleanSource[]): Promise<Item[]> {
    const idle: Item[] = [];
    for (const source of sources) {
      if (this.#isOver) break;
      const found = await this.#input.remover.list(source, this.#budget);
      if (found === undefined) this.#report.failed += 1;
      for (const candidate of found ?? []) {
        const { idleSince, id } = candidate;
        const key = `${source.name}/${id}`;
        if (idleSince !== null) idle.push({ source, candidate, key, idleSince });
        else await this.#remove({ source, candidate }, "orphan");
      }
    }
    return idle;
  }

  /** Answers what is not old enough. */
  async #clearOld(idle: readonly Item[]): Promise<Item[]> {
    const { ages, occasion, rules } = this.#input;
    const young: Item[] = [];
    for (const item of idle) {
      if (ages.of(item.key, item.idleSince) > rules.maxAgeMs) await this.#remove(item, "age");
      else if (occasion === "shutdown" && item.source.temporary) await this.#remove(item, "shutdown");
      else young.push(item);
    }
    return young;
  }

  /** On every disk that is too full, the longest idle first, looking again after each. */
  async #clearForRoom(young: readonly Item[]): Promise<void> {
    const { rules } = this.#input;
    const left = new Set(young);
    const disks = new Map<number, string>();
    for (const place of rules.places) {
      const device = await deviceOf(place);
      if (device !== undefined && !disks.has(device)) disks.set(device, place);
    }
    for (const [device, place] of disks) {
      let use = (await this.#use(place)) ?? 0;
      if (use <= rules.diskThreshold) continue;
      for (const item of left) {
        if (use < rules.diskTarget || this.#isOver) break;
        if (item.candidate.path === undefined || (await deviceOf(item.candidate.path)) !== device) continue;
        left.delete(item);
        await this.#remove(item, "disk");
        use = (await this.#use(place)) ?? 0;
      }
      if (use > rules.diskThreshold) {
        rules.log.warn({ place, use }, "the disk is too full, and nothing idle is left to remove");
      }
    }
  }

  async #remove({ source, candidate }: Pick<Item, "source" | "candidate">, reason: RemoveReason) {
    if (this.#isOver) return;
    const report = this.#report;
    const outcome = await this.#input.remover.remove(source, candidate, reason, this.#budget);
    if (outcome === "failed" || outcome === "busy") report[outcome] += 1;
    if (outcome !== "removed") return;
    report.removed += 1;
    report.byReason[reason] += 1;
    report.freedBytes += candidate.bytes ?? 0;
  }

  get #isOver(): boolean {
    return this.#input.left() <= 0;
  }

  get #budget(): number {
    return Math.max(1, Math.min(this.#input.rules.removalMs, this.#input.left()));
  }

  async #fullest(): Promise<number | null> {
    const uses = await Promise.all(this.#input.rules.places.map((place) => this.#use(place)));
    return uses.reduce<number | null>((most, use) => (use === null ? most : Math.max(most ?? 0, use)), null);
  }

  async #use(place: string): Promise<number | null> {
    const { disk, log } = this.#input.rules;
    try {
      return await within(DISK_READ_MS, `reading the disk at ${place}`, () => disk(place));
    } catch (error) {
      log.warn({ err: error, place }, "cannot tell how full the disk is");
      return null;
    }
  }
}

async function deviceOf(path: string): Promise<number | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found?.dev;
}
