/** What JSON can write and jsonb cannot keep: NUL and halves of surrogate pairs. */
const REFUSED = /\\u(0000|d[89a-f])/i;
const REPLACEMENT = "\ufffd";

/** JSON text for a jsonb parameter; a character PostgreSQL refuses becomes U+FFFD, as for broken UTF-8. */
export function toJsonb(value: unknown): string {
  const text = JSON.stringify(value);
  return REFUSED.test(text) ? JSON.stringify(clean(JSON.parse(text))) : text;
}

function clean(value: unknown): unknown {
  if (typeof value === "string") return cleanText(value);
  if (Array.isArray(value)) return value.map(clean);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [cleanText(key), clean(item)]));
}

function cleanText(text: string): string {
  return text.toWellFormed().replaceAll("\0", REPLACEMENT);
}
