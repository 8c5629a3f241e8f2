import type { Finding } from "#schemas";
import { nameIssue } from "./popular-names.ts";
import {
  beside,
  fileName,
  type Issue,
  lineAt,
  type ScannedFile,
  type Scanner,
  shortened,
} from "./scanner.ts";

const SECTIONS = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"] as const;
const LOCKS = [
  "package-lock.json",
  "npm-shrinkwrap.json",
  "yarn.lock",
  "pnpm-lock.yaml",
  "bun.lock",
  "bun.lockb",
];
const INSTALL_SCRIPTS = ["preinstall", "install", "postinstall", "prepare"];
const MAX_PACKAGES = 2000;
/** Of one section: each has its line looked for from the beginning. */
const MAX_FINDINGS = 25;

/** package.json: where packages come from, whether the same ones come next time, what runs on installation. */
export const packageManifests: Scanner = {
  wants: (path) => fileName(path) === "package.json",
  scan(file) {
    const manifest = parsed(file.text);
    if (manifest === undefined) return [];
    return [
      ...SECTIONS.flatMap((section) => dependencyFindings(file, section, manifest[section])),
      ...scriptFindings(file, manifest.scripts),
      ...lockFindings(file, manifest),
    ];
  },
};

/** Lock files: what does not come from a registry over TLS, or comes without a check sum. */
export const packageLocks: Scanner = {
  wants: (path) => ["package-lock.json", "npm-shrinkwrap.json"].includes(fileName(path)),
  scan({ path, text }) {
    const lines = text.split(/\r?\n/);
    return lines.flatMap((line, index) => {
      const [, source = ""] = /^\s*"resolved":\s*"([^"]*)"/.exec(line) ?? [];
      const issue = source === "" ? undefined : sourceIssue("A locked package", source);
      const unchecked =
        /^https:/.test(source) && !lines.slice(index, index + 3).some((each) => /"integrity"/.test(each));
      const found = issue ?? (unchecked ? UNCHECKED : undefined);
      return found === undefined ? [] : [{ file: path, line: index + 1, ...found }];
    });
  },
};

const UNCHECKED: Issue = {
  severity: "medium",
  cwe: "CWE-494",
  title: "A locked package has no check sum",
  detail: "Without `integrity` nobody notices when the address serves something else.",
  fix: "Make the lock file anew with a current npm.",
};

function dependencyFindings(file: ScannedFile, section: string, dependencies: unknown): Finding[] {
  if (dependencies === null || typeof dependencies !== "object") return [];
  const start = Math.max(0, file.text.indexOf(`"${section}"`));
  const found: Finding[] = [];
  for (const [name, version] of Object.entries(dependencies).slice(0, MAX_PACKAGES)) {
    if (typeof version !== "string") continue;
    const issues = [
      nameIssue(name, "npm"),
      sourceIssue(`\`${shortened(name)}\``, version) ?? versionIssue(name, version),
    ].flatMap((issue) => issue ?? []);
    if (issues.length === 0) continue;
    const at = file.text.indexOf(JSON.stringify(name), start);
    const line = lineAt(file.text, at === -1 ? start : at);
    found.push(...issues.map((issue) => ({ file: file.path, line, ...issue })));
    if (found.length >= MAX_FINDINGS) break;
  }
  return found;
}

function versionIssue(name: string, version: string): Issue | undefined {
  if (!/^(|\*|x|latest|next|>=?\s*[\d.]+)$/.test(version.trim())) return undefined;
  return {
    severity: "medium",
    cwe: "CWE-1357",
    title: `\`${shortened(name)}\` is not bound to a version`,
    detail: `\`${version.trim() || "(empty)"}\` takes whatever is published next, without anybody's review.`,
    fix: "Name a version or a range within one major version, and keep the lock file under version control.",
  };
}

/** Where a package comes from, when that is no registry. */
function sourceIssue(name: string, source: string): Issue | undefined {
  if (/^(git\+)?http:/.test(source) || source.startsWith("git:")) {
    return {
      severity: "high",
      cwe: "CWE-494",
      title: `${name} comes over an unprotected connection`,
      detail: `Anybody on the way can exchange what ${shortened(source)} serves.`,
      fix: "Take it from the registry, or over TLS with a check sum.",
    };
  }
  const repository = /^(git\+|git@|github:|gitlab:|bitbucket:)|^[\w.-]+\/[\w.-]+(#|$)/.test(source);
  if (repository && !/#[0-9a-f]{40}$/.test(source)) {
    return {
      severity: "medium",
      cwe: "CWE-829",
      title: `${name} comes from a repository without a fixed commit`,
      detail: `${shortened(source)} may hold other code tomorrow.`,
      fix: "Name the full commit after `#`, or take a published version.",
    };
  }
  return undefined;
}

function scriptFindings(file: ScannedFile, scripts: unknown): Finding[] {
  if (scripts === null || typeof scripts !== "object") return [];
  return Object.entries(scripts).flatMap(([name, script]: [string, unknown]) => {
    if (!INSTALL_SCRIPTS.includes(name) || typeof script !== "string") return [];
    const fetches = /\b(curl|wget|https?:\/\/|base64|eval)\b/.test(script);
    const line = lineAt(file.text, Math.max(0, file.text.indexOf(`"${name}"`)));
    return [
      {
        file: file.path,
        line,
        severity: fetches ? ("high" as const) : ("info" as const),
        cwe: fetches ? "CWE-494" : "CWE-829",
        title: fetches ? `\`${name}\` fetches code and runs it` : `\`${name}\` runs on every installation`,
        detail: `\`${shortened(script)}\` runs with the rights of whoever installs the project.`,
        fix: "Do without it, or make it a script that people call.",
      },
    ];
  });
}

function lockFindings(file: ScannedFile, manifest: Record<string, unknown>): Finding[] {
  const needs = ["dependencies", "devDependencies"].some((section) => {
    const value = manifest[section];
    return value !== null && typeof value === "object" && Object.keys(value).length > 0;
  });
  // A workspace's lock file stands at the root.
  const locked = LOCKS.some((name) => file.paths.has(name) || file.paths.has(beside(file.path, name)));
  if (!needs || locked) return [];
  return [
    {
      file: file.path,
      line: 1,
      severity: "medium",
      cwe: "CWE-1357",
      title: "There is no lock file",
      detail: "Every installation takes whatever versions fit at that moment, without check sums.",
      fix: "Keep the lock file of your package manager under version control.",
    },
  ];
}

function parsed(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return value !== null && typeof value === "object" && !Array.isArray(value) ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}
