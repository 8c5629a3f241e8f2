import { asObject } from "#platform/json.ts";

/** So much is written at once, however soon: what comes faster is held back by its reader, not kept here. */
const MAX_CHARS = 256 * 1024;

/** The kinds of text a delta may consist of and be joined by. */
const TEXTS = ["content", "reasoning_content", "reasoning"] as const;

/**
 * Bundles the events of a stream: the first goes out at once, later ones at most every `flushMs`, with
 * neighbouring pieces of the same text joined into one event.
 */
export class DeltaBatch {
  readonly #write: (text: string) => void;
  readonly #flushMs: number;
  #events: Record<string, unknown>[] = [];
  #chars = 0;
  #timer: NodeJS.Timeout | undefined;
  #lastWrite = Number.NEGATIVE_INFINITY;

  constructor(write: (text: string) => void, flushMs: number) {
    this.#write = write;
    this.#flushMs = flushMs;
  }

  /** `chars`: its length as JSON. */
  add(event: Record<string, unknown>, chars: number): void {
    this.#chars += chars;
    const last = this.#events.at(-1);
    if (last === undefined || !join(last, event)) this.#events.push(event);
    const wait = this.#lastWrite + this.#flushMs - performance.now();
    if (wait <= 0 || this.#chars > MAX_CHARS) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), wait);
  }

  /** Write what is there; also to be called at the end. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#events.length === 0) return;
    this.#lastWrite = performance.now();
    this.#chars = 0;
    this.#write(this.#events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join(""));
    this.#events = [];
  }
}

/** Append `next`'s text to `last` when both are nothing but a piece of the same text. */
function join(last: Record<string, unknown>, next: Record<string, unknown>): boolean {
  const into = pureText(last);
  const from = pureText(next);
  if (into === undefined || from === undefined || into.kind !== from.kind || last.id !== next.id)
    return false;
  into.delta[into.kind] = into.text + from.text;
  return true;
}

function pureText(event: Record<string, unknown>) {
  if (event.usage !== undefined && event.usage !== null) return undefined;
  if (!Array.isArray(event.choices) || event.choices.length !== 1) return undefined;
  const choice = asObject(event.choices[0]);
  const delta = asObject(choice?.delta);
  if (delta === undefined || (choice?.finish_reason ?? null) !== null) return undefined;
  const keys = Object.keys(delta).filter((key) => key !== "role" && delta[key] !== null);
  const kind = TEXTS.find((name) => name === keys[0]);
  const text = kind === undefined ? undefined : delta[kind];
  if (keys.length !== 1 || kind === undefined || typeof text !== "string") return undefined;
  return { delta, kind, text };
}
