import { execFileSync, spawnSync } from "node:child_process";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { existsSync, readFileSync } from "node:fs";
import { cp, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { readZip } from "#apps/api/archives/read-zip.ts";
import { writeZip } from "#apps/api/archives/write-zip.ts";
import { createUser } from "#database/accounts/index.ts";
import { createProject, getProject, readTree } from "#database/projects/index.ts";
import { readConfig } from "#platform";
import { FsEngine } from "#sandbox/engines/fs/engine.ts";
import {
  type Canaries,
  type HostileDirectory,
  openHostileDirectory,
  plantCanaries,
} from "../support/canaries.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { collected, type HandedPlace, openPlace } from "../support/handed-workspace.ts";
import { renamed, zipOf } from "../support/zips.ts";

const { quota } = readConfig({});
/** What git runs by itself in a repository it is pointed at. */
const HOOKS = [
  "pre-commit",
  "post-checkout",
  "post-merge",
  "fsmonitor-watchman",
  "reference-transaction",
  "post-index-change",
];

/** Every file that makes some tool run something, with `command` as what is run; `.git` aside. */
const traps = (command: string): Record<string, string> => ({
  ".gitattributes": "* filter=trap diff=trap merge=trap\n",
  ".npmrc": `script-shell=${command}\nnode-options=--require ./trap.js\n`,
  ".envrc": `${command}\n`,
  "package.json": JSON.stringify({
    scripts: { preinstall: command, prepare: command, test: command, start: command },
  }),
  ".vscode/tasks.json": JSON.stringify({
    tasks: [{ label: "t", command, runOptions: { runOn: "folderOpen" } }],
  }),
  ".vscode/settings.json": JSON.stringify({
    "terminal.integrated.profiles.linux": { sh: { path: command } },
  }),
  Makefile: `all:\n\t${command}\n`,
  ".husky/pre-commit": `${command}\n`,
  "vitest.config.ts": `require("child_process").execSync(${JSON.stringify(command)})\n`,
  "trap.js": `require("child_process").execSync(${JSON.stringify(command)})\n`,
  "sitecustomize.py": `import os; os.system(${JSON.stringify(command)})\n`,
  "conftest.py": `import os; os.system(${JSON.stringify(command)})\n`,
  ".pre-commit-config.yaml": `repos: [{repo: local, hooks: [{id: t, name: t, entry: ${command}, language: system}]}]\n`,
});

const gitConfig = (command: string) => `[core]
\trepositoryformatversion = 0
\tfsmonitor = ${command}
\tsshCommand = ${command}
\teditor = ${command}
\tpager = ${command}
\thooksPath = .git/hooks
[filter "trap"]
\tclean = ${command}
\tsmudge = ${command}
[diff "trap"]
\ttextconv = ${command}
[alias]
\tstatus = !${command}
[credential]
\thelper = !${command}
`;

const PLANT = `
const fs = require("fs"), path = require("path"), { FILES, GIT, COMMAND } = process.env;
const put = (file, content) => { fs.mkdirSync(path.dirname(file), { recursive: true }); fs.writeFileSync(file, content, { mode: 0o755 }); };
for (const [name, content] of Object.entries(JSON.parse(FILES))) put(name, content);
for (const repository of [".git", "sub/.git", "node_modules/dep/.git"]) {
  for (const directory of ["objects", "refs/heads"]) fs.mkdirSync(repository + "/" + directory, { recursive: true });
  put(repository + "/HEAD", "ref: refs/heads/main\\n");
  put(repository + "/config", GIT);
  for (const hook of JSON.parse(process.env.HOOKS)) put(repository + "/hooks/" + hook, "#!/bin/sh\\n" + COMMAND + "\\n");
}
put("worktree/.git", "gitdir: ../.git\\n");
put("capital/.GIT/config", GIT);
put("spaced/.git /config", GIT);
put("inner/file.txt", "fine");
`;

let test: TestDatabase;
let hostile: HostileDirectory;
let canaries: Canaries;
let marker: string;
let handed: HandedPlace;
beforeAll(async () => {
  test = await testDatabase();
  hostile = await openHostileDirectory();
  handed = await openPlace(test, hostile, hostile.slot);
});
afterAll(async () => {
  await hostile?.[Symbol.asyncDispose]();
  await test?.[Symbol.asyncDispose]();
});
beforeEach(async () => {
  canaries = await plantCanaries();
  marker = join(canaries.dir, "empty/tripped");
});
afterEach(() => canaries[Symbol.asyncDispose]());

/** The program all traps run; the marker lies where everybody may write. */
async function trapCommand(): Promise<string> {
  const script = join(canaries.dir, "trap");
  await writeFile(script, `#!/bin/sh\ntouch ${marker}\n`, { mode: 0o755 });
  return script;
}

const environment = (command: string) => ({
  FILES: JSON.stringify(traps(command)),
  GIT: gitConfig(command),
  COMMAND: command,
  HOOKS: JSON.stringify(HOOKS),
});

/** Programs this process started while `act` was under way. */
async function startedDuring(act: () => Promise<void>): Promise<string[]> {
  const started: string[] = [];
  const onStart = (message: unknown) => {
    const { options } = message as { options?: { file?: string } };
    started.push(options?.file ?? "?");
  };
  subscribe("tracing:child_process.spawn:start", onStart);
  try {
    await act();
    return started;
  } finally {
    unsubscribe("tracing:child_process.spawn:start", onStart);
  }
}

describe("what is planted for tools of the host", () => {
  it("is not run by anything the host does with a workspace, and .git is never brought along", async () => {
    const command = await trapCommand();
    const workspace = await handed.prepare({ "a.txt": "a\n" });
    await workspace.enter();
    await handed.inside(`process.chdir("/area/request/work"); ${PLANT}`, environment(command));
    const started = await startedDuring(async () => {
      const { files } = await collected(workspace);
      const paths = files.map(({ path }) => path);
      expect(paths.filter((path) => /(^|\/)\.git[ .]*(\/|$)/i.test(path))).toEqual([]);
      expect(paths).toEqual([...Object.keys(traps("")), "inner/file.txt"].sort());
      const engine = new FsEngine();
      const root = join(handed.place.requests, (await readdir(handed.place.requests))[0] ?? "");
      const directory = await engine.start({
        root,
        quota: { bytes: 1 << 24, files: 10_000, fileBytes: 1 << 20 },
      });
      const watch = await directory.watch({ onChange: () => undefined, onError: () => undefined });
      await directory.copy("work", "copy");
      await directory.move("copy/package.json", "package.json");
      await directory.list("copy/.git/hooks");
      await directory.usage();
      await watch.close();
      await engine.close();
      await workspace.remove();
    });
    expect(started).toEqual([]);
    expect(existsSync(marker)).toBe(false);
  });

  it("is not run by import or export; an archive with .git in it is refused, and none is made", async () => {
    const command = await trapCommand();
    const owner = { username: "eve", password_hash: "-", role: "developer", initial_balance: 0 } as const;
    const { id: owner_id } = await createUser(test.database.db, owner);
    const dir = await mkdtemp(join(tmpdir(), "cds-archives-"));
    const started = await startedDuring(async () => {
      const files = Object.entries(traps(command)).map(([path, text]) => ({
        path,
        content: Buffer.from(text),
      }));
      const project = await createProject(test.database, {
        owner_id,
        name: "traps",
        quota,
        start: { author: "eve", summary: "start", files },
      });
      const { head_revision, updated_at } = await getProject(test.database.db, project.id);
      const tree = await readTree(test.database.db, project.id, head_revision);
      const zip = join(dir, "export.zip");
      await writeFile(zip, await buffer(writeZip(test.database.db, tree, updated_at)));
      const back: string[] = [];
      for await (const { path } of readZip(zip, quota)) back.push(path);
      expect(back.sort()).toEqual(Object.keys(traps("")).sort());
      for (const name of [
        ".git/config",
        "sub/.git/hooks/post-checkout",
        ".GIT/config",
        ".git./config",
        ".Git /config",
        "x/.git",
      ]) {
        const from = "x".repeat(name.length);
        await writeFile(zip, renamed(await zipOf({ [from]: gitConfig(command) }), from, name));
        const read = async () => {
          for await (const { path } of readZip(zip, quota)) expect(path).toBe("none may come");
        };
        await expect(read(), name).rejects.toMatchObject({ name: "AppError" });
      }
    });
    await rm(dir, { recursive: true });
    expect(started).toEqual([]);
    expect(existsSync(marker)).toBe(false);
  });

  it.runIf(spawnSync("git", ["--version"]).status === 0)(
    "would run, were such a tool used there: the traps are real",
    async () => {
      const command = await trapCommand();
      await hostile.inside(
        `fs = require("fs"); ${PLANT}`.replace('const fs = require("fs"), path', "const path"),
        environment(command),
      );
      // Somewhere of our own: git does not use directories of other users.
      const copy = await mkdtemp(join(tmpdir(), "cds-traps-"));
      await cp(hostile.work, copy, { recursive: true, force: true });
      if (process.getuid?.() === 0) execFileSync("chown", ["-R", "0:0", copy]);
      spawnSync("git", ["status"], {
        cwd: copy,
        env: { PATH: process.env.PATH, HOME: copy },
        timeout: 60_000,
      });
      expect(existsSync(marker)).toBe(true);
      await rm(copy, { recursive: true });
    },
  );
});

/** Where programs are started on the host: of the machine's own, with arguments of ours, never in a user's directory. */
const STARTERS =
  /^(sandbox\/(?!engines\/fs\/|conformance\/)|database\/embedded\/|apps\/llmserver\/local\/|apps\/studio\/)/;

it("nothing that handles people's files can start a program on the host at all", () => {
  const sources = execFileSync(
    "git",
    ["ls-files", "--cached", "--others", "--exclude-standard", "*.ts", "*.tsx"],
    { encoding: "utf8" },
  )
    .split("\n")
    .filter(
      (path) => path !== "" && existsSync(path) && !/\.test\.tsx?$|^(tests|bench|scripts)\//.test(path),
    );
  const starters = sources.filter((path) =>
    /child_process|\bnode-pty\b|\bcluster\b"/.test(readFileSync(path, "utf8")),
  );
  expect(starters.length).toBeGreaterThan(0);
  expect(starters.filter((path) => !STARTERS.test(path))).toEqual([]);
  // Nor is any code of theirs loaded, nor the server's own directory changed to one of theirs.
  const loaders = sources.filter((path) =>
    /process\.chdir|node:vm"|createRequire\((?!import\.meta\.url\))|import\((?!")/.test(
      readFileSync(path, "utf8"),
    ),
  );
  expect(
    loaders.filter((path) =>
      /^(workspaces|database\/projects|apps\/(api|orchestrator)|sandbox\/engines\/fs)\//.test(path),
    ),
  ).toEqual([]);
});
