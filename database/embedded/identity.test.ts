import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { assertEnterable, chooseDataDir, namedIdentity, serverIdentity } from "./identity.ts";

const root = process.getuid?.() === 0;

describe("whom the embedded database runs as, and where", () => {
  const base = mkdtempSync(join(tmpdir(), "cds-id-"));
  afterAll(() => rmSync(base, { recursive: true }));

  it("is ourselves when we are not root, else an unprivileged user, always the same for the same data", () => {
    const pgdata = join(base, "postgres");
    const first = serverIdentity(pgdata);
    if (!root) return expect(first).toBeUndefined();
    expect(first?.uid).toBeGreaterThan(0);
    expect(namedIdentity().uid).toBeGreaterThan(0);
    mkdirSync(pgdata);
    expect(serverIdentity(pgdata)).toEqual(first);
    chownSync(pgdata, 4321, 1234);
    expect(serverIdentity(pgdata)).toEqual({ uid: 4321, gid: 1234 });
  });

  it("keeps the data where it was, unless nobody gave the place and it cannot be entered", () => {
    const dataDir = join(base, "home/clone/data");
    mkdirSync(join(base, "home/clone"), { recursive: true });
    chmodSync(base, 0o711);
    chmodSync(join(base, "home"), 0o755);
    expect(chooseDataDir({ dataDir, dataDirGiven: false })).toEqual({ dataDir, moved: false });
    chmodSync(join(base, "home"), 0o700);
    expect(chooseDataDir({ dataDir, dataDirGiven: true })).toEqual({ dataDir, moved: false });
    expect(chooseDataDir({ dataDir, dataDirGiven: false })).toEqual(
      root ? { dataDir: "/var/lib/cyberdevstudio", moved: true } : { dataDir, moved: false },
    );
    const stranger = { uid: 61_711, gid: 61_711 };
    expect(() => assertEnterable(dataDir, stranger)).toThrow(/may not enter .*home\.$/);
    expect(() => assertEnterable(dataDir, undefined)).not.toThrow();
    chmodSync(join(base, "home"), 0o711);
    expect(() => assertEnterable(dataDir, stranger)).not.toThrow();
  });
});
