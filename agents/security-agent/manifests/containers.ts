import { byLine, fileName, type Issue, type Scanner, shortened } from "./scanner.ts";

/** Dockerfiles: what they are built on, what they fetch, and whose rights it runs with. */
export const dockerfiles: Scanner = {
  wants: (path) => /^(Dockerfile|Containerfile)(\..+)?$|\.Dockerfile$/i.test(fileName(path)),
  scan(file) {
    const stages = new Set<string>();
    return byLine(file, (line) => {
      const [, image = "", stage] = /^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?/i.exec(line) ?? [];
      const issue = image === "" ? instructionIssue(line) : imageIssue(image, stages);
      if (stage !== undefined) stages.add(stage.toLowerCase());
      return issue;
    });
  },
};

/** Scripts and make files: rights for everybody, and code that is run as it arrives. */
export const scripts: Scanner = {
  wants: (path) => /\.(sh|bash)$|^(Makefile|makefile)$/.test(fileName(path)),
  scan: (file) => byLine(file, (line) => (/^\s*#/.test(line) ? undefined : commandIssue(line))),
};

/** What a shell's line does to the machine it runs on. */
export function commandIssue(line: string): Issue | undefined {
  if (
    /\bchmod\s+(-\S+\s+)*(0?[0-7][0-7][2367]|[ugoa]*[oa][ugoa]*[+=][rxX]*w\S*)(\s|$)|\bumask\s+0?000\b/.test(
      line,
    )
  ) {
    return {
      severity: "medium",
      cwe: "CWE-732",
      title: "Files are made writable for everybody",
      detail: `Any user and any process may change them: ${shortened(line)}`,
      fix: "Give the one user that needs it the right to write.",
    };
  }
  if (
    /\b(curl|wget)\b[^|;&]{0,300}\|\s*(sudo\s+)?(\S*\/)?(ba|z|da)?sh\b|\b(ba)?sh\s+-c\s+["']?\$\((curl|wget)\b/.test(
      line,
    )
  ) {
    return {
      severity: "high",
      cwe: "CWE-494",
      title: "Code is run as it arrives from the network",
      detail: `Nobody has seen or checked it: ${shortened(line)}`,
      fix: "Fetch a fixed version, compare its check sum, then run it.",
    };
  }
  return undefined;
}

function imageIssue(image: string, stages: ReadonlySet<string>): Issue | undefined {
  if (image === "scratch" || image.includes("$") || stages.has(image.toLowerCase())) return undefined;
  const tag = /:([^/@:]+)(?:@|$)/.exec(image)?.[1];
  if (image.includes("@sha256:")) return undefined;
  if (tag !== undefined && tag !== "latest") return undefined;
  return {
    severity: "medium",
    cwe: "CWE-1357",
    title: "The base image is not bound to a version",
    detail: `\`${shortened(image)}\` is whatever was published last.`,
    fix: "Name a version, best with its digest.",
  };
}

function instructionIssue(line: string): Issue | undefined {
  if (/^\s*#/.test(line)) return undefined;
  if (/^\s*ADD\s+(--\S+\s+)*https?:\/\//i.test(line) && !/--checksum=/.test(line)) {
    return {
      severity: "medium",
      cwe: "CWE-494",
      title: "A file is fetched without a check sum",
      detail: `Nobody notices when the address serves something else: ${shortened(line)}`,
      fix: "Add `--checksum=sha256:…`.",
    };
  }
  if (/^\s*USER\s+(root|0)\b/i.test(line)) {
    return {
      severity: "low",
      cwe: "CWE-250",
      title: "The container runs as root",
      detail: "What breaks into the program has every right in the container.",
      fix: "End with a user of its own.",
    };
  }
  return commandIssue(line);
}
