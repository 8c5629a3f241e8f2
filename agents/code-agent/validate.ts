import type { ProposedChange, ProposedFile } from "../agent.ts";

/** Beyond this a file is not searched for conflict markers: nobody reviews it by eye either. */
const MAX_SEARCHED_BYTES = 2 * 1024 * 1024;
const MAX_PROBLEMS = 20;
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** What keeps a run of CodeAgent from being a result; pure. */
export function validateCodeChange(change: ProposedChange): string[] {
  if (change.files.length === 0 && change.answer.trim() === "") {
    return ["The agent neither changed a file nor answered."];
  }
  return change.files.flatMap(problemsOf).slice(0, MAX_PROBLEMS);
}

function problemsOf(file: ProposedFile): string[] {
  const problems: string[] = [];
  if (insideRepository(file.path)) problems.push(`${file.path}: lies inside version control data.`);
  if (file.after === null) return problems;
  const after = textOf(file.after);
  const before = file.before === null ? undefined : textOf(file.before);
  if (after === undefined) return problems;
  if (hasConflictMarkers(after) && !(before !== undefined && hasConflictMarkers(before))) {
    problems.push(`${file.path}: conflict markers were left in it.`);
  }
  if (isManifest(file.path) && !isJson(after) && (before === undefined || isJson(before))) {
    problems.push(`${file.path}: is not valid JSON any more.`);
  }
  return problems;
}

function insideRepository(path: string): boolean {
  return path.split("/").some((part) => part.toLowerCase() === ".git");
}

function hasConflictMarkers(text: string): boolean {
  return /^<{7} .*\r?$[\s\S]*?^={7}\r?$[\s\S]*?^>{7} /m.test(text);
}

/** Only files that every tool reads as strict JSON: others may carry comments. */
function isManifest(path: string): boolean {
  return /(^|\/)(package|composer)\.json$/.test(path);
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function textOf(content: Uint8Array): string | undefined {
  if (content.byteLength > MAX_SEARCHED_BYTES) return undefined;
  try {
    return decoder.decode(content);
  } catch {
    return undefined;
  }
}
