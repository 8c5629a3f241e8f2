/** Deeper than any tool's schema or file of ours, and far from where recursive code runs out of stack (about 3000). */
export const MAX_JSON_DEPTH = 200;
/** Arrays, objects and commas together: some 0.3 s of parsing at the worst. What is large here is long text. */
export const MAX_JSON_PARTS = 250_000;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;

/**
 * As JSON.parse, for text that somebody else wrote: refused is what nests too deep or has too many parts, before it
 * is parsed. JSON.parse takes any depth, but JSON.stringify and every walk over the value then throw RangeError, far
 * away from where it came in (in a timer or a stream's handler: the end of the process); and 16 MB of brackets keep
 * it, and with it everybody, busy for 4 s.
 * @throws SyntaxError.
 */
export function parseForeignJson(
  text: string,
  reviver?: (key: string, value: unknown) => unknown,
  { depth = MAX_JSON_DEPTH, parts = MAX_JSON_PARTS }: { depth?: number; parts?: number } = {},
): unknown {
  checkShape(text, depth, parts);
  return JSON.parse(text, reviver);
}

/** One look at every character (3 ns each); what is no JSON is left for JSON.parse to refuse. */
function checkShape(text: string, maxDepth: number, maxParts: number): void {
  let depth = 0;
  let parts = 0;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) at = endOfString(text, at);
    else if (code === COMMA) parts += 1;
    else if ((code | 0x20) === 0x7b) {
      depth += 1;
      parts += 1;
      if (depth > maxDepth) throw new SyntaxError(`nested more than ${maxDepth} levels deep`);
    } else if ((code | 0x20) === 0x7d) depth -= 1;
    if (parts > maxParts) throw new SyntaxError(`more than ${maxParts} parts`);
  }
}

/** The place of the quote that ends the string begun at `start`, else the text's length. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === BACKSLASH) at += 1;
    else if (code === QUOTE) return at;
  }
  return text.length;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value as an object to look into, or undefined. */
export function asObject(value: unknown): Record<string, unknown> | undefined {
  return isObject(value) ? value : undefined;
}
