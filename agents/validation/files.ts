import type { ProposedChange, ProposedFile } from "../agent.ts";

/** Beyond this a file is not read by rules about text: nobody reviews it by eye either. */
const MAX_TEXT_BYTES = 2 * 1024 * 1024;
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** What keeps any agent's change from being a result; pure. */
export function fileProblems(change: ProposedChange): string[] {
  if (change.files.length === 0 && change.answer.trim() === "") {
    return ["The agent neither changed a file nor answered."];
  }
  return change.files.flatMap(problemsOf);
}

/** A file's content as text; undefined for what is no UTF-8, and for what is too large to be read. */
export function textOf(content: Uint8Array | null): string | undefined {
  if (content === null || content.byteLength > MAX_TEXT_BYTES) return undefined;
  try {
    return decoder.decode(content);
  } catch {
    return undefined;
  }
}

function problemsOf(file: ProposedFile): string[] {
  const problems: string[] = [];
  if (insideRepository(file.path)) problems.push(`${file.path}: lies inside version control data.`);
  const after = textOf(file.after);
  if (after === undefined) return problems;
  const before = textOf(file.before);
  if (hasConflictMarkers(after) && !(before !== undefined && hasConflictMarkers(before))) {
    problems.push(`${file.path}: conflict markers were left in it.`);
  }
  return problems;
}

function insideRepository(path: string): boolean {
  return path.split("/").some((part) => part.toLowerCase() === ".git");
}

/** One after the other, each looked for once from where the last one ended: a text full of them costs no more. */
function hasConflictMarkers(text: string): boolean {
  let at = 0;
  for (const marker of [/^<{7} /gm, /^={7}\r?$/gm, /^>{7} /gm]) {
    marker.lastIndex = at;
    if (!marker.test(text)) return false;
    at = marker.lastIndex;
  }
  return true;
}
