import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { enterable, firstClosed } from "./enterable.ts";

describe("enterable", () => {
  const base = mkdtempSync(join(tmpdir(), "cds-enter-"));
  afterAll(() => rmSync(base, { recursive: true }));
  const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const stranger = { uid: 61_711, gid: 61_711 };
  const groupMate = { uid: 61_711, gid: owner.gid };

  it("judges every directory on the way by owner, group and others", () => {
    chmodSync(base, 0o711);
    const [home, inside] = [join(base, "home"), join(base, "home/inside")];
    mkdirSync(inside, { recursive: true });
    const judge = (mode: number) => {
      chmodSync(home, mode);
      return [owner, groupMate, stranger].map((who) => enterable(inside, who));
    };
    const own = owner.uid === 0 || undefined;
    expect(judge(0o700)).toEqual([true, false, false]);
    expect(judge(0o710)).toEqual([true, true, false]);
    expect(judge(0o711)).toEqual([true, true, true]);
    expect(judge(0o701)).toEqual([true, false, true]);
    expect(judge(0o644)).toEqual([own ?? false, false, false]);
    expect(firstClosed(inside, stranger)).toBe(home);
    chmodSync(home, 0o755);
    expect(firstClosed(inside, stranger)).toBeUndefined();
  });

  it("is not stopped by files, nor by what does not exist yet, and nothing stops root", () => {
    writeFileSync(join(base, "file"), "", { mode: 0o600 });
    expect(enterable(join(base, "file"), stranger)).toBe(true);
    expect(enterable(join(base, "not/yet/there"), stranger)).toBe(true);
    chmodSync(base, 0o700);
    expect(enterable(base, { uid: 0, gid: 0 })).toBe(true);
    expect(enterable(join(base, "not/yet/there"), stranger)).toBe(false);
  });
});
