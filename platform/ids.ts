import { randomBytes } from "node:crypto";
import { ID_PREFIXES, type IdKind } from "#schemas";

/** Crockford's base32, lower case: sorts as the numbers it writes, no letters that look like digits. */
const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";
const TIME_CHARS = 10;
const COUNTER_CHARS = 3;
const RANDOM_CHARS = 13;
const COUNTER_LIMIT = 32 ** COUNTER_CHARS;

let lastMs = 0;
let counter = 0;

/**
 * `<prefix>_` + 26 characters: 50 bits of milliseconds, 15 bits that count within one, 65 random bits.
 * Ids of one process sort by creation, also within a millisecond and when the clock steps back.
 */
export function newId(kind: IdKind, now: number = Date.now()): string {
  if (now > lastMs) {
    lastMs = now;
    counter = 0;
  } else if (++counter === COUNTER_LIMIT) {
    lastMs += 1;
    counter = 0;
  }
  return `${ID_PREFIXES[kind]}_${base32(lastMs, TIME_CHARS)}${base32(counter, COUNTER_CHARS)}${randomBase32(RANDOM_CHARS)}`;
}

/** `length` characters of 5 random bits each. */
export function randomBase32(length: number): string {
  let text = "";
  for (const byte of randomBytes(length)) text += ALPHABET[byte & 31];
  return text;
}

function base32(value: number, length: number): string {
  let text = "";
  let rest = value;
  for (let index = 0; index < length; index++) {
    text = ALPHABET[rest % 32] + text;
    rest = Math.floor(rest / 32);
  }
  return text;
}
