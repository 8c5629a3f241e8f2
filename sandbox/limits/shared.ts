import { availableParallelism } from "node:os";
import { AppError } from "#schemas";
import type { SandboxLimits, SandboxStats } from "../types.ts";
import { Accounts, FIRST_WEIGHT, LAST_WEIGHT } from "./credit.ts";
import type {
  ControlGroup,
  ControlGroups,
  GroupUse,
  LimitDriver,
  LimitGroup,
  LimitHits,
  LimitRequest,
} from "./limits.ts";
import { type Member, TURN_MS, Turns } from "./turns.ts";

/** While nothing runs that could make others wait. */
const QUIET_MS = 250;
const QUIET_USE_MS = 2;
/** CPU time used by groups not looked at, upon which all are. */
const UNKNOWN_MS = 20;

/** What a group asks of the machine's shares. */
interface Host {
  /** Something has changed: decide anew. */
  changed(): void;
  /** Its processes are gone, and it with them. */
  left(member: Member): void;
  now(): number;
}

/** A control group whose processes run when its owner wants them to and it is their turn. */
class SharedGroup implements LimitGroup {
  readonly join: readonly string[];
  readonly watched: boolean;
  readonly prlimit: readonly string[];
  readonly member: Member;
  readonly #group: ControlGroup;
  readonly #turns: Turns;
  readonly #host: Host;
  #held = false;
  #ending = false;
  #applying: Promise<void> | undefined;
  #weight = FIRST_WEIGHT;
  #use: GroupUse = { cpuMs: 0, waitedMs: 0 };

  constructor(parts: { group: ControlGroup; member: Member; turns: Turns; host: Host }) {
    this.#group = parts.group;
    this.member = parts.member;
    this.#turns = parts.turns;
    this.#host = parts.host;
    this.join = parts.group.join;
    this.watched = parts.group.watched;
    this.prlimit = parts.group.prlimit;
  }

  attach(rootPid: number): void {
    this.#group.attach(rootPid);
    this.#turns.begin(this.member);
    this.#host.changed();
  }

  pids(): Promise<number[]> {
    return this.#group.pids();
  }

  stats(): Promise<SandboxStats> {
    return this.#group.stats();
  }

  async freeze(): Promise<void> {
    this.#turns.setAway(this.member, true);
    this.#host.changed();
    await this.apply();
    await this.#group.settled(true);
  }

  /** When it is its turn it goes on at once, else soon. */
  async thaw(): Promise<void> {
    this.#turns.setAway(this.member, false);
    this.rouse();
    await this.apply();
    if (!this.#held) await this.#group.settled(false);
  }

  rouse(): void {
    this.#turns.rouse(this.member, this.#host.now());
    this.#host.changed();
  }

  /** What is being written when this is asked for must not come after. */
  async killAll(): Promise<void> {
    this.#end();
    await this.#applying?.catch(() => undefined);
    await this.#group.killAll();
  }

  /** Who ran into a limit is not one of those that ask for little. */
  async hits(): Promise<LimitHits> {
    this.measure();
    const hits = await this.#group.hits();
    if (hits.memory > 0 || hits.processes > 0) this.member.account.overdraw(this.#host.now());
    return hits;
  }

  async remove(): Promise<void> {
    this.#end();
    this.#host.left(this.member);
    await this.#group.remove();
  }

  /** Tell what it has used since last asked; answers that, in ms of CPU time. Throws when the group is gone. */
  measure(): number {
    const before = this.#use;
    this.#use = this.#group.use();
    const usedMs = Math.max(0, this.#use.cpuMs - before.cpuMs);
    const { waitedMs: until } = this.#use;
    const waitedMs = until === null ? null : Math.max(0, until - (before.waitedMs ?? 0));
    this.#turns.use(this.member, { usedMs, waitedMs }, this.#host.now());
    return usedMs;
  }

  /** Make the kernel do what was decided. One write at a time, the last decision last. */
  apply(): Promise<void> {
    if (this.#applying === undefined && this.#held !== this.#wanted) this.#applying = this.#apply();
    return this.#applying ?? Promise.resolve();
  }

  async weigh(): Promise<void> {
    const weight = this.member.account.hog ? LAST_WEIGHT : FIRST_WEIGHT;
    if (weight === this.#weight || this.#ending) return;
    this.#weight = weight;
    await this.#group.setWeight(weight);
  }

  get #wanted(): boolean {
    return !this.#ending && (this.member.away || this.member.parked);
  }

  async #apply(): Promise<void> {
    try {
      while (this.#held !== this.#wanted) {
        const held = this.#wanted;
        await this.#group.hold(held);
        this.#held = held;
      }
    } finally {
      this.#applying = undefined;
    }
  }

  #end(): void {
    if (this.#ending) return;
    this.#ending = true;
    this.#turns.leave(this.member, this.#host.now());
    this.#host.changed();
  }
}

/** Shares the machine between the owners of sandboxes: see `credit.ts` and `turns.ts`. */
class SharedMachine implements LimitDriver {
  readonly #groups: ControlGroups;
  readonly #accounts = new Accounts();
  readonly #turns = new Turns(availableParallelism());
  readonly #members = new Map<Member, SharedGroup>();
  readonly #owners = new Map<Member, string>();
  readonly #host: Host = {
    changed: () => this.#decide(),
    left: (member) => this.#left(member),
    now: () => performance.now(),
  };
  #timer: NodeJS.Timeout | undefined;
  #measured = performance.now();
  #totalMs = 0;
  #unknownMs = 0;
  #quiet = false;
  #closed = false;

  constructor(groups: ControlGroups) {
    this.#groups = groups;
  }

  async create(limits: SandboxLimits, { owner, signal }: LimitRequest): Promise<LimitGroup> {
    if (signal.aborted || this.#closed) throw cancelled();
    const now = this.#host.now();
    const member = this.#turns.enter(this.#accounts.enter(owner, now), now);
    this.#owners.set(member, owner);
    const giveUp = () => this.#turns.leave(member, this.#host.now());
    signal.addEventListener("abort", giveUp, { once: true });
    try {
      this.#decide();
      await member.admitted.promise;
      if (signal.aborted || this.#closed) throw cancelled();
      const group = await this.#groups.create(limits);
      const shared = new SharedGroup({ group, member, turns: this.#turns, host: this.#host });
      this.#members.set(member, shared);
      this.#decide();
      return shared;
    } catch (error) {
      this.#turns.leave(member, this.#host.now());
      this.#left(member);
      this.#decide();
      throw error;
    } finally {
      signal.removeEventListener("abort", giveUp);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const member of [...this.#turns.members]) this.#turns.leave(member, this.#host.now());
    await this.#groups.close();
  }

  #decide(): void {
    if (this.#closed) return;
    const waitMs = this.#turns.decide(this.#host.now());
    for (const group of this.#members.values()) {
      // A group that this fails for is gone, or on its way.
      group.apply().catch(() => undefined);
      group.weigh().catch(() => undefined);
    }
    clearTimeout(this.#timer);
    if (this.#turns.members.size === 0) return;
    const untilMeasured = this.#measured + (this.#quiet ? QUIET_MS : TURN_MS) - this.#host.now();
    const next = Math.max(1, Math.min(untilMeasured, this.#quiet ? QUIET_MS : waitMs));
    this.#timer = setTimeout(() => this.#step(), next).unref();
  }

  #left(member: Member): void {
    const owner = this.#owners.get(member);
    if (owner === undefined) return;
    this.#owners.delete(member);
    this.#members.delete(member);
    this.#accounts.leave(owner, member.account, this.#host.now());
  }

  #step(): void {
    if (this.#host.now() - this.#measured >= TURN_MS - 1) {
      this.#measured = this.#host.now();
      try {
        this.#measure();
      } catch {
        // What cannot be told now is told by the next look.
      }
    }
    this.#decide();
  }

  /** The total tells whether there is more to look at than those who were busy last. */
  #measure(): void {
    const known = this.#use(false);
    const total = this.#groups.cpuMs();
    this.#quiet = total - this.#totalMs < QUIET_USE_MS;
    this.#unknownMs += total - this.#totalMs - known;
    this.#totalMs = total;
    if (this.#unknownMs < UNKNOWN_MS) return;
    this.#unknownMs = 0;
    this.#use(true);
  }

  #use(all: boolean): number {
    let usedMs = 0;
    for (const member of this.#turns.unseen(all)) {
      try {
        usedMs += this.#members.get(member)?.measure() ?? 0;
      } catch {
        // Removed meanwhile; what it used last was told before.
      }
    }
    return usedMs;
  }
}

const cancelled = () =>
  new AppError("Cancelled", "The start was cancelled while it waited for its turn on a busy machine.");

/** Limits by control groups, of a machine that all owners of sandboxes share. */
export function shareMachine(groups: ControlGroups): LimitDriver {
  return new SharedMachine(groups);
}
