import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { posix } from "node:path";
import { describe, expect, it } from "vitest";

/** The house rules a linter cannot know: who may import whom, what may stand where, how long a file may be. */

const ROOMS = [
  "agents",
  "database",
  "documents",
  "metrics",
  "platform",
  "sandbox",
  "schemas",
  "themes",
  "workspaces",
];
const APPS = ["api", "auth", "llmserver", "orchestrator", "studio", "studio-ui"];

/** room -> rooms it may import, besides itself. Tests, benches and scripts may import anything. */
const ARROWS: Record<string, readonly string[]> = {
  schemas: [],
  themes: [],
  agents: ["schemas"],
  platform: ["schemas"],
  database: ["schemas", "platform"],
  sandbox: ["schemas", "platform"],
  documents: ["schemas", "platform"],
  workspaces: ["schemas", "platform", "database", "sandbox"],
  "apps/studio-ui": ["schemas", "themes"],
  "apps/auth": ["schemas", "platform", "database"],
  "apps/llmserver": ["schemas", "platform", "database"],
  "apps/api": ["schemas", "platform", "database", "agents", "sandbox", "workspaces"],
  "apps/orchestrator": ["schemas", "platform", "database", "agents", "sandbox", "workspaces", "documents"],
  "apps/studio": [...ROOMS, ...APPS.map((app) => `apps/${app}`)],
};

const files = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
  encoding: "utf8",
})
  .split("\n")
  .filter((path) => path !== "" && existsSync(path));
const sources = files.filter((path) => /\.tsx?$/.test(path) && !path.endsWith(".d.ts"));
const isTest = (path: string) => /\.test\.tsx?$/.test(path) || path.startsWith("tests/");
const read = (path: string) => readFileSync(path, "utf8");

function roomOf(path: string): string | undefined {
  const [first, second] = path.split("/");
  if (first === "apps" && second !== undefined) return `apps/${second}`;
  return first !== undefined && ROOMS.includes(first) ? first : undefined;
}

function importsOf(path: string): string[] {
  const found = read(path).matchAll(/(?:from\s+|import\s*\(\s*|import\s+)"([^"]+)"/g);
  return [...found].flatMap(([, specifier]) => {
    if (specifier === undefined) return [];
    if (specifier.startsWith("#")) return [specifier.slice(1)];
    if (specifier.startsWith(".")) return [posix.join(posix.dirname(path), specifier)];
    return [];
  });
}

describe("tidy", () => {
  it("arrows between rooms point one way", () => {
    const wrong: string[] = [];
    for (const path of sources.filter((file) => !isTest(file))) {
      const room = roomOf(path);
      if (room === undefined) continue;
      for (const target of importsOf(path)) {
        const other = roomOf(target);
        if (other !== undefined && other !== room && !ARROWS[room]?.includes(other)) {
          wrong.push(`${path} imports ${target}`);
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  it("every room and app is known to this test", () => {
    const present = new Set(sources.map(roomOf).filter((room) => room !== undefined));
    expect([...present].filter((room) => !(room in ARROWS))).toEqual([]);
  });

  it("schemas runs in a browser: no Node module, nothing of ours", () => {
    const wrong = sources.filter(
      (path) => path.startsWith("schemas/") && !isTest(path) && /from "node:/.test(read(path)),
    );
    expect(wrong).toEqual([]);
  });

  it("agents do no IO: model and tools are handed in", () => {
    const io =
      /from "(node:(fs|child_process|http|https|net|tls|dgram|worker_threads)[^"]*|undici|pg|kysely)"|\bfetch\(/;
    const wrong = sources.filter(
      (path) => path.startsWith("agents/") && !isTest(path) && io.test(read(path)),
    );
    expect(wrong).toEqual([]);
  });

  it("SQL lives only in database/", () => {
    const statement = /\bsql`|\b(SELECT\s.+\sFROM|INSERT INTO|DELETE FROM|UPDATE\s\w+\sSET)\b/;
    const wrong = sources.filter(
      (path) =>
        !path.startsWith("database/") &&
        !isTest(path) &&
        !path.startsWith("bench/") &&
        statement.test(read(path)),
    );
    expect(wrong).toEqual([]);
  });

  it("files stay within 400 lines", () => {
    const long = sources
      .map((path) => ({ path, lines: read(path).split("\n").length - 1 }))
      .filter(({ lines }) => lines > 400);
    expect(long).toEqual([]);
  });

  it("nothing is left for later in a comment", () => {
    const marker = new RegExp(["\\bTO", "DO\\b|\\bFIX", "ME\\b|\\bXX", "X\\b|\\bHA", "CK\\b"].join(""));
    expect(sources.filter((path) => marker.test(read(path)))).toEqual([]);
  });

  it("no package registry and no path of a developer's machine is named", () => {
    const forbidden = new RegExp(
      ["registry\\.npm", "js\\.org|yarn", "pkg\\.com|deb\\.deb", "ian\\.org"].join(""),
    );
    const text = files.filter((path) => !/\.(png|ttf|woff2?|zip|ico)$/.test(path));
    expect(text.filter((path) => forbidden.test(read(path)))).toEqual([]);
    expect(text.filter((path) => read(path).includes(["", "work", "main"].join("/")))).toEqual([]);
  });

  it("every environment variable the configuration reads is documented, and the other way round", () => {
    const config = read("platform/config/config.ts");
    const read_ = new Set([...config.matchAll(/env,\s*"([A-Z][A-Z0-9_]+)"/g)].map(([, name]) => name));
    const documented = new Set(
      [...read("docs/configuration.md").matchAll(/^\| `([A-Z][A-Z0-9_]+)`/gm)].map(([, name]) => name),
    );
    expect([...read_].filter((name) => !documented.has(name))).toEqual([]);
    expect([...documented].filter((name) => !read_.has(name))).toEqual([]);
  });

  it("every room has a test", () => {
    const rooms = new Set(sources.map(roomOf).filter((room) => room !== undefined));
    const tested = new Set(sources.filter((path) => /\.test\.tsx?$/.test(path)).map(roomOf));
    expect([...rooms].filter((room) => !tested.has(room))).toEqual([]);
  });
});
