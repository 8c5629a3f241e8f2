/**
 * Hogs take turns. Fifty sandboxes that take all they can are slow for everybody, whatever they weigh: their time goes
 * into the kernel, where a lock's holder waits for the CPU too. So while they want more than there is only the seated ones
 * are let run, and for a moment none while somebody who asks for little is at work. Who is parked is stopped
 * on its way out of the kernel, so it holds nothing there.
 *
 * This is the logic alone, on a clock that is handed in (ms); `shared.ts` does what it decides.
 */
import type { Account } from "./credit.ts";
import { Hush } from "./hush.ts";

/** A turn, and how often use is measured. */
export const TURN_MS = 100;
/** CPU time, had or waited for, in a turn below which a hog is at rest, as one that waits for its model. */
const REST_MS = 5;
/** CPU time it would use in a turn alone below which one shares a seat with others: it sleeps most of the time. */
const DROWSY_MS = 20;
/** What those at rest may take together in a turn, the smallest first, whoever else is at work. */
const RESTING_MS = 25;
/** Who has waited for so much of a turn may as well want all of it: what little it had does not tell. */
const MOSTLY = 0.7;
/** Who has waited longer goes first, whatever it had before. */
export const LONGEST_WAIT_MS = 10_000;
/** A start waits no longer for a seat, but for the end of a hush. */
export const LONGEST_START_MS = 5000;
/** What counts as a turn, of its length. */
const WHOLE = 0.7;
/** How often somebody's wish brings a sandbox forward. */
const ROUSE_EVERY_MS = 1000;
/** Light ones that start, and that are at work, for each seat; of more, those with the least credit take turns too. */
const LIGHT_PER_SEAT = 1;
/** A light one that uses less than this in a turn is not at work. */
const WORK_MS = 1;
/** With no light one for so long, those that mostly sleep share seats: to stop and let go many at once takes the kernel long. */
const ALONE_MS = 300;
/** The next light one is often about to begin, and finds the kernel's locks free if nobody has to be parked first. */
export const LINGER_MS = 90;

/** One sandbox in its owner's account. */
export class Member {
  readonly account: Account;
  /** `waiting` to be started, `starting`, `running`. */
  phase: "waiting" | "starting" | "running" = "waiting";
  /** Not let run for now. */
  parked = false;
  /** Stopped by whoever owns it: takes no part. */
  away = false;
  /** May have run since its use was last measured. */
  unseen = true;
  /** CPU time it had or waited for in a turn, as last measured over one; hogs are thought busy before. */
  wantedMs = TURN_MS;
  /** What is kept for it of a turn: all, unless it sleeps most of the time, and somebody tells for how long it waited. */
  seatMs = TURN_MS;
  /** What the next such figure is made of: for how long it was let run, and what it had and waited for meanwhile. */
  readonly measured = { letRunMs: 0, usedMs: 0, waitedMs: 0 };
  #at: number;
  /** Light: at work. */
  working = true;
  /** Since when it has waited for a turn. */
  since: number;
  /** When it was last brought forward. */
  roused = Number.NEGATIVE_INFINITY;
  /** Told when its start may go on. */
  readonly admitted = Promise.withResolvers<void>();

  constructor(account: Account, now: number) {
    this.account = account;
    this.since = now;
    this.#at = now;
  }

  /** Time has passed in which it was let run, or not. */
  pass(now: number): void {
    if (this.seated && !this.away) this.measured.letRunMs += now - this.#at;
    this.#at = now;
  }

  get seated(): boolean {
    return this.phase !== "waiting" && !this.parked;
  }
}

export class Turns {
  readonly #seats: number;
  readonly #members = new Set<Member>();
  readonly #hush = new Hush();
  #lingerUntil = Number.NEGATIVE_INFINITY;
  /** When a light one was last at work, or wished to be. */
  #urgentAt = Number.NEGATIVE_INFINITY;
  #at = Number.NEGATIVE_INFINITY;
  /** Least CPU time had by an owner that works or waits to: who comes begins with it. */
  #floorMs = 0;

  constructor(seats: number) {
    this.#seats = seats;
  }

  get members(): ReadonlySet<Member> {
    return this.#members;
  }

  /** One more sandbox; a hog's start has to wait for `admitted`. */
  enter(account: Account, now: number): Member {
    const member = new Member(account, now);
    account.ranMs = Math.max(account.ranMs, this.#floorMs);
    this.#members.add(member);
    return member;
  }

  leave(member: Member, now: number): void {
    if (!this.#members.delete(member)) return;
    if (this.#isUrgent(member)) this.#lingerUntil = now + LINGER_MS;
    member.parked = false;
    member.admitted.resolve();
  }

  /** It has begun to run, and can be parked. */
  begin(member: Member): void {
    member.phase = "running";
    member.measured.letRunMs = 0;
  }

  /** Its owner stops it or lets it go on. */
  setAway(member: Member, away: boolean): void {
    member.away = away;
    if (away) member.parked = false;
  }

  /** Somebody waits for it: a hog comes next, once a second at most; a light one is at work. */
  rouse(member: Member, now: number): void {
    if (!member.account.hog) member.working = true;
    if (!member.parked || now - member.roused < ROUSE_EVERY_MS) return;
    member.roused = now;
    member.since = now - LONGEST_WAIT_MS - 1;
  }

  /** What CPU time it has had since last told, and for how long it waited for it; null: nobody knows. */
  use(member: Member, { usedMs, waitedMs }: { usedMs: number; waitedMs: number | null }, now: number): void {
    const { measured } = member;
    member.pass(now);
    member.unseen = member.seated;
    member.account.spend(usedMs, now);
    member.account.ranMs += usedMs;
    measured.usedMs += usedMs;
    measured.waitedMs += waitedMs ?? 0;
    // Interrupted by a hush it has not shown yet what it would use.
    if (member.phase !== "running" || measured.letRunMs < TURN_MS * WHOLE) return;
    member.wantedMs = ((measured.usedMs + measured.waitedMs) * TURN_MS) / measured.letRunMs;
    const aloneMs = usedAlone(measured);
    member.seatMs = waitedMs !== null && aloneMs < DROWSY_MS ? aloneMs : TURN_MS;
    member.working = member.wantedMs >= WORK_MS;
    Object.assign(measured, { letRunMs: 0, usedMs: 0, waitedMs: 0 });
  }

  /** Whose use there is to measure now; with `all`, whatever they used last. */
  unseen(all: boolean): Member[] {
    const seen = (member: Member) =>
      member.phase !== "running" || !member.unseen || (!all && this.#isCalm(member));
    return [...this.#members].filter((member) => !seen(member));
  }

  /** Who runs from now on: sets `parked`, admits starts. Answers after how many ms at most to ask again. */
  decide(now: number): number {
    const passed = Math.max(0, now - this.#at);
    this.#at = now;
    const hogs: Member[] = [];
    const light: Member[] = [];
    for (const member of this.#members) {
      member.account.look(now);
      member.pass(now);
      if (this.#hush.on && this.#isUrgent(member)) member.account.spendHush(passed);
      if (!member.away) (member.account.hog ? hogs : light).push(member);
      else this.#letGo(member);
    }
    const urgent = this.#first(light, hogs).filter((member) => this.#isUrgent(member));
    const wanting = this.#wanting(hogs);
    for (const { account } of this.#members) account.busy = false;
    for (const { account } of wanting) account.busy = true;
    for (const { account, phase, working } of light) if (phase === "running" && working) account.busy = true;
    for (const member of hogs) if (!wanting.has(member)) this.#letGo(member);
    if (sumOf(wanting) <= this.#seats * TURN_MS) {
      this.#hush.set(false, now);
      this.#floorMs = 0;
      for (const member of wanting) {
        member.account.ranMs = 0;
        this.#letGo(member);
      }
      return TURN_MS;
    }
    if (urgent.length > 0) this.#urgentAt = now;
    const wished = urgent.length > 0 || now < this.#lingerUntil;
    this.#hush.set(wished, now);
    // With the hush used up, whoever asks for little still finds a core.
    const seats = this.#hush.on ? 0 : wished ? Math.max(1, this.#seats - 1) : this.#seats;
    this.#seat(wanting, seats, now);
    const lingering = urgent.length === 0 && wished ? this.#lingerUntil - now : TURN_MS;
    return Math.max(1, Math.min(TURN_MS, lingering, this.#hush.nextMs(now)));
  }

  /** Lets the light ones go that may; of too many at work the rest are put to the `hogs`. */
  #first(light: readonly Member[], hogs: Member[]): Member[] {
    const most = this.#seats * LIGHT_PER_SEAT;
    const room = { start: most, work: most };
    const first: Member[] = [];
    for (const member of light.toSorted((one, other) => other.account.leftMs - one.account.leftMs)) {
      if (member.phase === "starting") room.start -= 1;
      if (member.phase === "starting" || (member.phase === "running" && !member.working)) first.push(member);
      else if (member.phase === "running" && --room.work < 0) hogs.push(member);
      else first.push(member);
    }
    for (const member of first)
      if (member.phase !== "waiting" || room.start-- > 0 || isOverdue(member, this.#at)) this.#letGo(member);
    return first;
  }

  #isUrgent({ account, away, phase, working }: Member): boolean {
    return !account.hog && !away && account.mayHush && (phase !== "running" || working);
  }

  #isCalm(member: Member): boolean {
    return member.account.hog ? member.wantedMs < REST_MS : !member.working;
  }

  /** The hogs that want all they can get: not those at rest, as far as they are at rest together. */
  #wanting(hogs: readonly Member[]): Set<Member> {
    const resting = hogs
      .filter((member) => member.phase === "running" && !member.parked && member.wantedMs < REST_MS)
      .sort((one, other) => one.wantedMs - other.wantedMs);
    const wanting = new Set(hogs);
    let together = 0;
    for (const member of resting) {
      together += member.wantedMs;
      if (together <= RESTING_MS) wanting.delete(member);
    }
    for (const { account } of wanting) account.ranMs = Math.max(account.ranMs, this.#floorMs);
    return wanting;
  }

  #seat(wanting: ReadonlySet<Member>, seats: number, now: number): void {
    const isLate = ({ since, seated }: Member) => !seated && now - since > LONGEST_WAIT_MS;
    const before = (one: Member, other: Member) =>
      Number(isBackingOff(one, now)) - Number(isBackingOff(other, now)) ||
      Number(isLate(other)) - Number(isLate(one)) ||
      (isLate(one) ? 0 : one.account.ranMs - other.account.ranMs) ||
      Number(other.seated) - Number(one.seated) ||
      one.since - other.since;
    const order = [...wanting].sort(before);
    // A start that is under way cannot be stopped.
    const chosen = new Set(order.filter(({ phase }) => phase === "starting"));
    const owners = new Set([...chosen].map(({ account }) => account));
    const isShared = now - this.#urgentAt > ALONE_MS;
    let leftMs = seats * TURN_MS - sumOf(chosen);
    const choose = (member: Member) => {
      if (leftMs <= 0 || chosen.has(member)) return;
      chosen.add(member);
      owners.add(member.account);
      leftMs -= isShared ? member.seatMs : TURN_MS;
    };
    // One of each owner first.
    for (const member of order) if (!owners.has(member.account)) choose(member);
    for (const member of order) choose(member);
    for (const member of order) {
      if (chosen.has(member) || (isOverdue(member, now) && !this.#hush.on)) this.#letGo(member);
      else this.#park(member, now);
    }
    // Those that sleep most of the time have little: who comes new would always go before all who work.
    const awake = order.filter(({ seatMs }) => seatMs === TURN_MS);
    const floors = (awake.length > 0 ? awake : order).map(({ account }) => account.ranMs);
    this.#floorMs = Math.min(...floors);
  }

  #park(member: Member, now: number): void {
    if (member.phase !== "running" || member.parked) return;
    member.parked = true;
    member.since = now;
  }

  #letGo(member: Member): void {
    member.parked = false;
    member.unseen = true;
    if (member.phase !== "waiting") return;
    member.phase = "starting";
    member.admitted.resolve();
  }
}

/**
 * What one would use of a turn if nobody made it wait: the waits of one that sleeps in between only put off its next sleep, so
 * they are left out, and what it had is its share of the rest. One that never sleeps wants all.
 */
function usedAlone({ letRunMs, usedMs, waitedMs }: Member["measured"]): number {
  const othersMs = Math.max(usedMs, letRunMs - waitedMs);
  return waitedMs > letRunMs * MOSTLY || othersMs === 0 ? TURN_MS : (usedMs * TURN_MS) / othersMs;
}

const sumOf = (members: Iterable<Member>) => [...members].reduce((sum, member) => sum + member.seatMs, 0);

const isBackingOff = ({ phase, account }: Member, now: number) =>
  phase === "waiting" && !account.mayBegin(now);

const isOverdue = (member: Member, now: number) =>
  member.phase === "waiting" && now - member.since > LONGEST_START_MS && !isBackingOff(member, now);
