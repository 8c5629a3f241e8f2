import { byLine, fileName, type Issue, type Scanner } from "./scanner.ts";

/** Keys that tell what they are by their form alone. */
const KEYS: readonly (readonly [name: string, form: RegExp])[] = [
  ["An AWS access key", /\b(?:AKIA|ASIA)[0-9A-Z]{16}\b/],
  ["A GitHub token", /\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,})\b/],
  ["A GitLab token", /\bglpat-[\w-]{20,}\b/],
  ["A Slack token", /\bxox[abprs]-[A-Za-z0-9-]{20,}\b/],
  ["A Google API key", /\bAIza[\w-]{35}\b/],
  ["A Stripe key", /\b[rs]k_live_[A-Za-z0-9]{20,}\b/],
  ["A model provider's key", /\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}\b/],
  ["An npm token", /\bnpm_[A-Za-z0-9]{36}\b/],
  ["A private key", /-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----/],
  [
    "A password in an address",
    /\b[a-z][a-z0-9+]{2,20}:\/\/[^\s:@/'"<>$]{1,64}:[^\s:@/'"<>${}]{6,128}@[\w.-]+/,
  ],
];
const EXAMPLE =
  /example|sample|dummy|changeme|placeholder|x{6}|\.\.\.|localhost|127\.0\.0\.1|password@|:password|user:pass/i;
const SECRET_NAME =
  /^\s*(?:export\s+)?\w*(?:SECRET|TOKEN|PASSWORD|PASSWD|PRIVATE_KEY|API_?KEY)\w*\s*=\s*(\S{8,})/i;
/** Lines of bundled code say nothing to people, and cost most. */
const MAX_LINE_CHARS = 2000;

/** Keys and passwords in any file; never repeated in the finding. */
export const secrets: Scanner = {
  wants: () => true,
  scan(file) {
    const name = fileName(file.path);
    const environment = /^\.env(\..+)?$/.test(name) && !/example|sample|template|dist/.test(name);
    return byLine(file, (line) => {
      if (line.length > MAX_LINE_CHARS) return undefined;
      const key = KEYS.find(([, form]) => form.test(line));
      if (key !== undefined) return EXAMPLE.test(line) ? undefined : issueOf(key[0]);
      const [, value = ""] = environment ? (SECRET_NAME.exec(line) ?? []) : [];
      return value === "" || EXAMPLE.test(value)
        ? undefined
        : issueOf("A secret of this project's environment");
    });
  },
};

function issueOf(what: string): Issue {
  return {
    severity: "critical",
    cwe: "CWE-798",
    title: `${what} lies in the project's files`,
    detail: "Whoever can read the project, now or in its history, can use it.",
    fix: "Revoke it, and hand a new one over at run time.",
  };
}
