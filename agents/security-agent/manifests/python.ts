import { nameIssue } from "./popular-names.ts";
import { byLine, fileName, type Issue, type Scanner, shortened } from "./scanner.ts";

/** requirements.txt and its kin: one package a line. */
export const requirements: Scanner = {
  wants: (path) => /^(requirements|constraints)[\w.-]*\.(txt|in)$/.test(fileName(path)),
  scan: (file) =>
    byLine(file, (line) => {
      const text = line.replace(/(^|\s)#.*$/, "").trim();
      if (/^--?[a-z]/.test(text)) return optionIssue(text);
      const [, name] = /^([A-Za-z0-9][\w.-]*)/.exec(text) ?? [];
      if (name === undefined) return undefined;
      return (
        nameIssue(name, "pypi") ??
        sourceIssue(text) ??
        (/[=<>~!]/.test(text) ? rangeIssue(name, text) : anyVersion(name))
      );
    }),
};

/** pyproject.toml: dependencies as strings in lists (PEP 621), or as keys of a table (Poetry). */
export const pyprojects: Scanner = {
  wants: (path) => fileName(path) === "pyproject.toml",
  scan(file) {
    let table = "";
    let list = false;
    return byLine(file, (line) => {
      const [, header] = /^\s*\[{1,2}([^[\]]+)\]{1,2}\s*$/.exec(line) ?? [];
      if (header !== undefined) {
        table = header.trim();
        return undefined;
      }
      if (/^\s*(dependencies|requires|[\w-]+)\s*=\s*\[/.test(line)) {
        list = /^\s*(dependencies|requires)\s*=/.test(line) || /dependenc/.test(table);
      }
      const issue = list ? listedIssue(line) : tableIssue(table, line);
      if (/\]\s*,?\s*$/.test(line.replace(/"[^"]*"|'[^']*'/g, ""))) list = false;
      return issue;
    });
  },
};

function listedIssue(line: string): Issue | undefined {
  for (const [, , entry = ""] of line.matchAll(/(["'])([^"']+)\1/g)) {
    const [, name] = /^([A-Za-z0-9][\w.-]*)/.exec(entry) ?? [];
    if (name === undefined) continue;
    const issue =
      nameIssue(name, "pypi") ?? sourceIssue(entry) ?? (/[=<>~!]/.test(entry) ? undefined : anyVersion(name));
    if (issue !== undefined) return issue;
  }
  return undefined;
}

function tableIssue(table: string, line: string): Issue | undefined {
  if (!/^tool\.poetry\.(.*\.)?dependencies$/.test(table)) return undefined;
  const [, name = "", value = ""] = /^\s*["']?([A-Za-z0-9][\w.-]*)["']?\s*=\s*(.+)$/.exec(line) ?? [];
  if (name === "" || name === "python") return undefined;
  return (
    nameIssue(name, "pypi") ??
    sourceIssue(value) ??
    (/^["'](\*|latest|)["']/.test(value) ? anyVersion(name) : undefined)
  );
}

function sourceIssue(text: string): Issue | undefined {
  if (/\bhttp:\/\/|\bgit:\/\//.test(text)) {
    return {
      severity: "high",
      cwe: "CWE-494",
      title: "A package comes over an unprotected connection",
      detail: `Anybody on the way can exchange what is fetched: ${shortened(text)}`,
      fix: "Take it from an index, or over TLS with a check sum.",
    };
  }
  if (/\b(git|hg|svn)\+|\bgit\s*=/.test(text) && !/@[0-9a-f]{40}\b|\brev\s*=/.test(text)) {
    return {
      severity: "medium",
      cwe: "CWE-829",
      title: "A package comes from a repository without a fixed commit",
      detail: `It may hold other code tomorrow: ${shortened(text)}`,
      fix: "Name the full commit, or take a published version.",
    };
  }
  return undefined;
}

function optionIssue(text: string): Issue | undefined {
  if (/^(-i|--(extra-)?index-url)\b.*\bhttp:|^--trusted-host\b/.test(text)) {
    return {
      severity: "high",
      cwe: "CWE-494",
      title: "Packages come from an index that is not verified",
      detail: `Anybody on the way can exchange them: ${shortened(text)}`,
      fix: "Use an index over TLS.",
    };
  }
  if (/^--extra-index-url\b/.test(text)) {
    return {
      severity: "medium",
      cwe: "CWE-427",
      title: "A second index is searched",
      detail: "Whoever publishes a higher version under the same name in the other index is taken.",
      fix: "Serve all packages from one index.",
    };
  }
  return /^(-e|--editable)\b/.test(text) ? sourceIssue(text) : undefined;
}

function rangeIssue(name: string, text: string): Issue | undefined {
  if (/===?|~=|</.test(text)) return undefined;
  return />/.test(text) ? anyVersion(name) : undefined;
}

function anyVersion(name: string): Issue {
  return {
    severity: "medium",
    cwe: "CWE-1357",
    title: `\`${shortened(name)}\` is not bound to a version`,
    detail: "Every installation takes whatever is published next, without anybody's review.",
    fix: "Name a version (`==`), best with its hash.",
  };
}
