/** Pieces of a key this long are as good as struck out whole. */
const WINDOW = 8;
/** Shorter ones are no secret, and would be found in any text. */
const SHORTEST = 4;
/** Keys of local providers are often a word ("ollama"), which may well stand in an answer. */
const SHORTEST_IN_ANSWERS = 16;
const REDACTED = "[redacted]";

export interface Redactor {
  /** Strikes the key out wherever it appears: whole, in pieces of 8 and more, masked, or encoded. */
  text(text: string): string;
  /** The whole key only: cheap enough for every event of a stream. */
  quick(text: string): string;
}

/** A redactor for one key, in its common encodings. */
export function createRedactor(key: string): Redactor {
  const forms = encodings(key);
  // Only failures need them, and most calls do not fail.
  let windows: Set<string> | undefined;
  const strike = (text: string) => {
    let result = text;
    for (const form of forms) if (result.includes(form)) result = result.replaceAll(form, REDACTED);
    return result;
  };
  return {
    quick: key.length < SHORTEST_IN_ANSWERS ? (text) => text : strike,
    text(text) {
      windows ??= new Set(forms.flatMap(windowsOf));
      return unmask(strikeWindows(strike(text), windows), key);
    },
  };
}

function encodings(key: string): string[] {
  const bytes = Buffer.from(key);
  const forms = new Set([
    key,
    encodeURIComponent(key),
    JSON.stringify(key).slice(1, -1),
    bytes.toString("hex"),
    bytes.toString("hex").toUpperCase(),
  ]);
  // Within a longer text the bytes can start at any of three places of a base64 group.
  for (let shift = 0; shift < 3; shift += 1) {
    const shifted = Buffer.concat([Buffer.alloc(shift), bytes]);
    const whole = shifted.length - (shifted.length % 3);
    const from = shift === 0 ? 0 : 4;
    for (const encoding of ["base64", "base64url"] as const) {
      forms.add(shifted.subarray(0, whole).toString(encoding).slice(from));
    }
  }
  return [...forms].filter((form) => form.length >= SHORTEST).sort((a, b) => b.length - a.length);
}

function windowsOf(form: string): string[] {
  if (form.length < WINDOW) return [];
  return Array.from({ length: form.length - WINDOW + 1 }, (_, at) => form.slice(at, at + WINDOW));
}

/** Every stretch of the text that is made of windows of the key becomes one mark. */
function strikeWindows(text: string, windows: ReadonlySet<string>): string {
  let result = "";
  let from = 0;
  for (let at = 0; at + WINDOW <= text.length; at += 1) {
    if (!windows.has(text.slice(at, at + WINDOW))) continue;
    let end = at + WINDOW;
    while (end < text.length && windows.has(text.slice(end - WINDOW + 1, end + 1))) end += 1;
    result += text.slice(from, at) + REDACTED;
    from = end;
    at = end - 1;
  }
  return result + text.slice(from);
}

/** Providers quote keys as `sk-ab***wxyz`: what is left of the key there goes as well. */
function unmask(text: string, key: string): string {
  return text.replace(
    /([\w-]{0,64})(?:\*{2,}|\u2022{2,}|\.{3}|\u2026)([\w-]{0,64})/g,
    (whole, before: string, after: string) => {
      const isStart = before.length >= 3 && key.startsWith(before);
      const isEnd = after.length >= 3 && key.endsWith(after);
      return isStart || isEnd ? REDACTED : whole;
    },
  );
}
