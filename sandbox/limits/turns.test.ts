import { describe, expect, it } from "vitest";
import { Accounts } from "./credit.ts";
import { HUSH_SHARE } from "./hush.ts";
import { LINGER_MS, LONGEST_START_MS, LONGEST_WAIT_MS, type Member, TURN_MS, Turns } from "./turns.ts";

const SEATS = 2;

/** A machine of two cores on which time passes in steps, and everybody who may run uses what they want. */
class Machine {
  now = 0;
  /** Whether its kernel tells who waited for the CPU. */
  tells = true;
  readonly turns = new Turns(SEATS);
  readonly accounts = new Accounts();
  /** CPU time had, by member. */
  readonly had = new Map<Member, number>();
  readonly #wants = new Map<Member, number>();
  readonly #unmeasured = new Map<Member, { usedMs: number; waitedMs: number }>();
  #measured = 0;
  #next = 0;

  /** Somebody's program, which wants this share of a core. */
  enter(owner: string, share: number): Member {
    const member = this.turns.enter(this.accounts.enter(owner, this.now), this.now);
    this.#wants.set(member, share);
    this.had.set(member, 0);
    this.decide();
    return member;
  }

  leave(member: Member, owner: string): void {
    this.turns.leave(member, this.now);
    this.accounts.leave(owner, member.account, this.now);
    this.#wants.delete(member);
    this.decide();
  }

  want(member: Member, share: number): void {
    this.#wants.set(member, share);
  }

  decide(): void {
    this.#next = this.now + this.turns.decide(this.now);
  }

  running(): Member[] {
    return [...this.#wants.keys()].filter(
      ({ phase, parked, away }) => phase === "running" && !parked && !away,
    );
  }

  /** Let `ms` pass; programs that may start do. */
  pass(ms: number, each: () => void = () => undefined): void {
    for (const until = this.now + ms; this.now < until; this.now += 5) {
      for (const member of this.#wants.keys()) if (member.phase === "starting") this.turns.begin(member);
      const running = this.running();
      const wanted = running.reduce((sum, member) => sum + (this.#wants.get(member) ?? 0), 0);
      const slower = Math.max(1, wanted / SEATS);
      for (const member of running) {
        // It runs and sleeps in turn, and what is slower is the running.
        const share = this.#wants.get(member) ?? 0;
        const used = (5 * share) / (share * slower + 1 - share);
        this.had.set(member, (this.had.get(member) ?? 0) + used);
        const { usedMs, waitedMs } = this.#unmeasured.get(member) ?? { usedMs: 0, waitedMs: 0 };
        this.#unmeasured.set(member, { usedMs: usedMs + used, waitedMs: waitedMs + used * (slower - 1) });
      }
      if (this.now - this.#measured >= TURN_MS) this.#measure();
      if (this.now >= this.#next) this.decide();
      each();
    }
  }

  #measure(): void {
    this.#measured = this.now;
    for (const member of this.turns.unseen(true)) {
      const { usedMs, waitedMs } = this.#unmeasured.get(member) ?? { usedMs: 0, waitedMs: 0 };
      this.turns.use(member, { usedMs, waitedMs: this.tells ? waitedMs : null }, this.now);
      this.#unmeasured.delete(member);
    }
    this.decide();
  }

  /** So many that take all they can, until each has used up its credit. */
  crowd(count: number): Member[] {
    const hogs = Array.from({ length: count }, (_, index) => this.enter(`hog-${index}`, 1));
    this.pass(count * 150 + 1000);
    expect(hogs.every(({ account }) => account.hog)).toBe(true);
    return hogs;
  }
}

describe("turns", () => {
  it("nobody is parked while there is a seat for each, whatever they use", () => {
    const machine = new Machine();
    const hogs = machine.crowd(SEATS);
    const light = machine.enter("light", 0.01);
    machine.pass(10_000, () => expect([...hogs, light].some(({ parked }) => parked)).toBe(false));
  });

  it.each([true, false])(
    "of fifty only as many as there are cores run, and all get the same (told who waits: %s)",
    (tells) => {
      const machine = new Machine();
      machine.tells = tells;
      const hogs = machine.crowd(50);
      const before = hogs.map((hog) => machine.had.get(hog) ?? 0);
      machine.pass(60_000, () => expect(machine.running().length).toBeLessThanOrEqual(SEATS));
      const had = hogs.map((hog, index) => (machine.had.get(hog) ?? 0) - (before[index] ?? 0));
      expect(Math.min(...had)).toBeGreaterThan(Math.max(...had) - 4 * TURN_MS);
      expect(Math.min(...had)).toBeGreaterThan(0);
    },
  );

  it("is fair to owners, not to sandboxes", () => {
    const machine = new Machine();
    const many = Array.from({ length: 20 }, () => machine.enter("many", 1));
    const few = ["a", "b", "c"].map((owner) => machine.enter(owner, 1));
    machine.pass(5000);
    const had = (members: Member[]) =>
      members.reduce((sum, member) => sum + (machine.had.get(member) ?? 0), 0);
    const before = [had(many), ...few.map((member) => had([member]))];
    machine.pass(30_000);
    const after = [had(many), ...few.map((member) => had([member]))];
    const gained = after.map((ms, index) => ms - (before[index] ?? 0));
    expect(Math.max(...gained)).toBeLessThan(Math.min(...gained) * 1.2);
  });

  it("who waits for its model keeps running without a seat; who begins to spin needs one", () => {
    const machine = new Machine();
    const hogs = machine.crowd(20);
    const [calm = machine.enter("never", 0)] = hogs;
    machine.want(calm, 0.01);
    // Its own credit does not come back in that time.
    machine.pass(3000);
    machine.pass(4000, () => expect(calm.parked).toBe(false));
    machine.want(calm, 1);
    machine.pass(2 * TURN_MS);
    machine.pass(2000, () => expect(machine.running().length).toBeLessThanOrEqual(SEATS));
  });

  it("many who wait for their models leave nearly all of the machine to those who work, and are not held up", () => {
    const machine = new Machine();
    const hogs = machine.crowd(30);
    const [spinning, waiting] = [hogs.slice(0, 4), hogs.slice(4)];
    for (const member of waiting) machine.want(member, 0.04);
    machine.pass(20_000);
    const before = new Map(machine.had);
    machine.pass(20_000);
    const shareOf = (member: Member) => ((machine.had.get(member) ?? 0) - (before.get(member) ?? 0)) / 20_000;
    for (const member of waiting) expect(shareOf(member)).toBeGreaterThan(0.04 * 0.8);
    expect(spinning.map(shareOf).reduce((sum, share) => sum + share)).toBeGreaterThan(SEATS * 0.4);
  });

  it("who works and came before is not put last by those who come new, beside many who mostly sleep", () => {
    const machine = new Machine();
    const hogs = machine.crowd(30);
    for (const member of hogs) machine.want(member, 0.05);
    machine.pass(20_000);
    const works = machine.enter("works", 1);
    machine.pass(2000);
    const before = machine.had.get(works) ?? 0;
    for (let fresh = 0; fresh < 10; fresh += 1) {
      machine.enter(`fresh-${fresh}`, 1);
      machine.pass(2000);
    }
    expect((machine.had.get(works) ?? 0) - before).toBeGreaterThan(1000);
  });

  it("nobody waits longer than the bound, however many come new", () => {
    const machine = new Machine();
    const [old = machine.enter("never", 0)] = machine.crowd(30);
    let last = machine.had.get(old) ?? 0;
    let since = machine.now;
    let longest = 0;
    let fresh = 0;
    machine.pass(60_000, () => {
      if (machine.now % 500 === 0) machine.enter(`fresh-${fresh++}`, 1);
      const had = machine.had.get(old) ?? 0;
      if (had > last) since = machine.now;
      last = had;
      longest = Math.max(longest, machine.now - since);
    });
    expect(fresh).toBeGreaterThan(100);
    expect(longest).toBeLessThan(LONGEST_WAIT_MS + 5000);
  });

  it("no hog runs while somebody who asks for little is at work, and soon after they do", () => {
    const machine = new Machine();
    const hogs = machine.crowd(50);
    const light = machine.enter("light", 1);
    machine.pass(50, () => expect(hogs.every(({ parked }) => parked)).toBe(true));
    machine.leave(light, "light");
    machine.pass(LINGER_MS - 10, () => expect(machine.running()).toHaveLength(0));
    machine.pass(20);
    expect(machine.running()).toHaveLength(SEATS);
  });

  it("a stream of short runs, each somebody else's, holds hogs for its share of any second at most", () => {
    const machine = new Machine();
    const hogs = new Set(machine.crowd(10));
    let count = 0;
    let current = machine.enter("short-0", 0.5);
    const held: boolean[] = [];
    machine.pass(10_000, () => {
      held.push(!machine.running().some((member) => hogs.has(member)));
      if (machine.now % 20 !== 0) return;
      machine.leave(current, `short-${count++}`);
      current = machine.enter(`short-${count}`, 0.5);
    });
    for (let from = 0; from + 200 <= held.length; from += 20) {
      const share = held.slice(from, from + 200).filter((each) => each).length / 200;
      expect(share).toBeGreaterThan(HUSH_SHARE / 2);
      expect(share).toBeLessThan(HUSH_SHARE + 0.05);
    }
  });

  it("one who keeps others waiting by asking for little without end does so a tenth of the time at most", () => {
    const machine = new Machine();
    const hogs = new Set(machine.crowd(10));
    machine.enter("sly", 0.015);
    machine.pass(5000);
    let held = 0;
    machine.pass(20_000, () => {
      if (!machine.running().some((member) => hogs.has(member))) held += 5;
    });
    expect(held).toBeLessThan(20_000 * 0.15);
  });
});

describe("starts", () => {
  it("who begins a new program again and again begins as a hog, and waits for a seat", () => {
    const machine = new Machine();
    machine.crowd(10);
    const first = machine.enter("again", 1);
    machine.pass(3000);
    expect(first.account.hog).toBe(true);
    machine.leave(first, "again");
    const second = machine.enter("again", 1);
    expect(second.account).toBe(first.account);
    expect(second.phase).toBe("waiting");
    machine.pass(LONGEST_START_MS + 100);
    expect(second.phase).toBe("running");
    machine.leave(second, "again");
    machine.pass(15_000);
    expect(machine.enter("again", 1).phase).toBe("starting");
  });

  it("a start waits no longer than the bound, though others have always had less", () => {
    const machine = new Machine();
    machine.crowd(50);
    const { account } = machine.enter("again", 1);
    account.overdraw(machine.now);
    account.ranMs = 1e9;
    const member = machine.enter("again", 1);
    machine.pass(LONGEST_START_MS / 2);
    expect(member.phase).toBe("waiting");
    machine.pass(LONGEST_START_MS / 2 + 2 * TURN_MS);
    expect(member.phase).toBe("running");
  });

  it("whose programs run into limits again and again begins the next one later each time, while others want the machine", () => {
    const machine = new Machine();
    machine.crowd(10);
    const waits: number[] = [];
    for (let time = 0; time < 8; time += 1) {
      const member = machine.enter("bomb", 1);
      const begun = machine.now;
      while (member.phase !== "running") machine.pass(50);
      waits.push(machine.now - begun);
      member.account.overdraw(machine.now);
      machine.leave(member, "bomb");
    }
    // The first two as anybody, then for 2, 4, 8, 16, 30 s, and until there is a seat.
    expect(Math.max(...waits.slice(0, 2))).toBeLessThanOrEqual(LONGEST_START_MS + 100);
    for (const [index, least] of [2000, 4000, 8000, 16_000, 30_000, 30_000].entries()) {
      expect(waits[index + 2]).toBeGreaterThanOrEqual(least);
      expect(waits[index + 2]).toBeLessThanOrEqual(least + LONGEST_START_MS + 100);
    }
    machine.pass(70_000);
    const { account } = machine.enter("bomb", 1);
    account.overdraw(machine.now);
    expect(account.mayBegin(machine.now)).toBe(true);
  });

  it("nobody has to wait who ran into limits, while the machine is free", () => {
    const machine = new Machine();
    const account = machine.accounts.enter("bomb", 0);
    for (let time = 0; time < 3; time += 1) account.overdraw(machine.now);
    expect(account.mayBegin(machine.now)).toBe(false);
    expect(machine.enter("bomb", 1).phase).toBe("starting");
  });

  it("of many who ran into limits, as many begin as there are seats that nobody else wants", () => {
    const machine = new Machine();
    const owners = ["a", "b", "c", "d", "e"];
    for (const owner of owners)
      for (let time = 0; time < 3; time += 1) machine.accounts.enter(owner, 0).overdraw(machine.now);
    const [first, second, ...others] = owners.map((owner) => ({ owner, member: machine.enter(owner, 1) }));
    expect(others.map(({ member }) => member.phase)).toEqual(["waiting", "waiting", "waiting"]);
    for (const each of [first, second]) if (each !== undefined) machine.leave(each.member, each.owner);
    expect(others.filter(({ member }) => member.phase === "starting")).toHaveLength(SEATS);
  });

  it("who gives up waiting frees its place", async () => {
    const machine = new Machine();
    const hogs = machine.crowd(3);
    const waiting = machine.enter("hog-0", 1);
    expect(waiting.phase).toBe("waiting");
    machine.leave(waiting, "hog-0");
    await waiting.admitted.promise;
    for (const [index, hog] of hogs.slice(1).entries()) machine.leave(hog, `hog-${index + 1}`);
    expect(machine.turns.members.size).toBe(1);
    expect(hogs[0]?.parked).toBe(false);
  });
});

describe("wishes", () => {
  it("whom somebody waits for comes next, once a second", () => {
    const machine = new Machine();
    machine.crowd(50);
    const parked = [...machine.turns.members].filter(({ parked: is }) => is);
    const [first, second] = parked.toSorted((a, b) => b.since - a.since);
    if (first === undefined || second === undefined) throw new Error("nobody is parked");
    machine.turns.rouse(first, machine.now);
    machine.decide();
    expect(first.parked).toBe(false);
    expect(second.parked).toBe(true);
    machine.pass(2 * TURN_MS);
    expect(first.parked).toBe(true);
    machine.turns.rouse(first, machine.now);
    machine.decide();
    expect(first.parked).toBe(true);
  });

  it("who is stopped by its owner takes no seat, and is not parked besides", () => {
    const machine = new Machine();
    const hogs = machine.crowd(3);
    const [first] = hogs;
    if (first === undefined) throw new Error("nobody is there");
    machine.turns.setAway(first, true);
    machine.decide();
    machine.pass(1000, () => expect(hogs.some(({ parked }) => parked)).toBe(false));
    machine.turns.setAway(first, false);
    machine.pass(3 * TURN_MS);
    expect(hogs.some(({ parked }) => parked)).toBe(true);
  });

  it("accounts are kept as long as they say something", () => {
    const machine = new Machine();
    const member = machine.enter("somebody", 1);
    machine.pass(400);
    machine.leave(member, "somebody");
    expect(machine.accounts.size).toBe(1);
    machine.pass(60_000);
    machine.leave(machine.enter("other", 0), "other");
    expect(machine.accounts.size).toBe(1);
  });
});
