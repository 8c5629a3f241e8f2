import { commandIssue } from "./containers.ts";
import { byLine, type Issue, type Scanner, shortened } from "./scanner.ts";

/** What anybody who opens an issue or a pull request can write. */
const FOREIGN =
  /\$\{\{[^}]*\bgithub\.(event\.(issue|pull_request|comment|review|discussion)\.[\w.]*(title|body)|event\.pull_request\.head\.(ref|label)|head_ref|event\.commits)/;

/** GitHub workflows: whose code runs, with which rights, and what strangers can put into it. */
export const workflows: Scanner = {
  wants: (path) => /(^|\/)\.github\/(workflows|actions)\/.+\.ya?ml$/.test(path),
  scan(file) {
    const privileged = /^[ \t]*pull_request_target\b|[[,\s]pull_request_target\b/m.test(file.text);
    let runs = false;
    let depth = 0;
    return byLine(file, (line) => {
      const indent = line.length - line.trimStart().length;
      const [, dash = "", rest = ""] = /^\s*(-\s+)?run:(.*)$/.exec(line) ?? [];
      if (rest !== "" || /\brun:\s*$/.test(line)) {
        runs = true;
        depth = indent + dash.length;
      } else if (line.trim() !== "" && indent <= depth) {
        runs = false;
      }
      return lineIssue(line, runs, privileged);
    });
  },
};

function lineIssue(line: string, runs: boolean, privileged: boolean): Issue | undefined {
  if (/^\s*#/.test(line)) return undefined;
  if (runs && FOREIGN.test(line)) {
    return {
      severity: "critical",
      cwe: "CWE-78",
      title: "Strangers' text becomes part of a shell command",
      detail: `Whoever opens an issue or a pull request can run commands: ${shortened(line)}`,
      fix: "Hand it over in an environment variable, and quote that.",
    };
  }
  if (privileged && /\bref:\s*\$\{\{[^}]*pull_request\.head/.test(line)) {
    return {
      severity: "critical",
      cwe: "CWE-829",
      title: "A stranger's code runs with the repository's secrets",
      detail:
        "`pull_request_target` has the rights of the base, and the head of the pull request is checked out.",
      fix: "Use `pull_request`, or do not check out the head.",
    };
  }
  return actionIssue(line) ?? (runs ? commandIssue(line) : undefined);
}

function actionIssue(line: string): Issue | undefined {
  const [, action = "", version = ""] =
    /^\s*(?:-\s*)?uses:\s*["']?([^@\s"']+)(?:@([^\s"'#]+))?/.exec(line) ?? [];
  if (action !== "" && !/^(\.|docker:)/.test(action) && !/^[0-9a-f]{40}$/.test(version)) {
    const moving = /^(|main|master|latest|HEAD)$/.test(version);
    // What GitHub itself publishes is as trustworthy as what runs it.
    if (!moving && /^(actions|github)\//.test(action)) return undefined;
    return {
      severity: moving ? "high" : "medium",
      cwe: "CWE-829",
      title: `\`${shortened(action)}\` is not bound to a commit`,
      detail: `\`${version === "" ? "(nothing)" : shortened(version)}\` can be moved to other code at any time.`,
      fix: "Name the full commit, with the version as a comment.",
    };
  }
  if (/^\s*permissions:\s*write-all\b/.test(line)) {
    return {
      severity: "medium",
      cwe: "CWE-250",
      title: "The workflow may write everything",
      detail: "Any step that is taken over can change the repository and its releases.",
      fix: "Name the few rights that are needed.",
    };
  }
  return undefined;
}
