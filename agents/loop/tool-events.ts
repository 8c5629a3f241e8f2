import type { TaskEventBody } from "#schemas";

/** What of a tool's output and input a watcher gets, characters. */
const MAX_OUTPUT_CHARS = 16 * 1024;
const MAX_INPUT_CHARS = 4 * 1024;
const MAX_TITLE_CHARS = 300;
const MAX_INPUT_FIELDS = 20;
const MAX_ID_CHARS = 200;
const MAX_NAME_CHARS = 100;

type ToolEvent = Extract<TaskEventBody, { type: "tool" }>;

export interface ToolMoment {
  readonly call_id: string;
  readonly name: string;
  readonly status: ToolEvent["status"];
  readonly title?: string | undefined;
  readonly input?: Readonly<Record<string, unknown>> | undefined;
  readonly output?: string | undefined;
}

/** A tool's event as watchers get it: bounded, and each text as `clean` leaves it. */
export function toolEvent(moment: ToolMoment, clean: (text: string) => string): ToolEvent {
  const { call_id, name, status, title, input, output = "" } = moment;
  const fields = Object.entries(input ?? {}).slice(0, MAX_INPUT_FIELDS);
  const shown = clean(output);
  const long = shown.length > MAX_OUTPUT_CHARS;
  return {
    type: "tool",
    call_id: call_id.slice(0, MAX_ID_CHARS),
    name: name.slice(0, MAX_NAME_CHARS),
    status,
    ...(title === undefined ? {} : { title: clean(title).slice(0, MAX_TITLE_CHARS) }),
    ...(fields.length === 0
      ? {}
      : { input: Object.fromEntries(fields.map(([field, value]) => [field, shownValue(value, clean)])) }),
    ...(shown === "" ? {} : { output: long ? endsOf(shown) : shown }),
    ...(long ? { truncated: true } : {}),
  };
}

/** Where the files lie while the agent works is nothing a watcher knows. `directory`: its working one. */
export function pathCleaner(directory: string): (text: string) => string {
  return (text) =>
    text.includes(directory) ? text.replaceAll(`${directory}/`, "").replaceAll(directory, ".") : text;
}

function shownValue(value: unknown, clean: (text: string) => string): unknown {
  if (typeof value === "number" || typeof value === "boolean" || value === null) return value;
  const text = clean(typeof value === "string" ? value : JSON.stringify(value));
  return text.length > MAX_INPUT_CHARS ? `${text.slice(0, MAX_INPUT_CHARS)}…` : text;
}

/** Beginning and end: errors stand at the end. */
function endsOf(output: string): string {
  const half = MAX_OUTPUT_CHARS / 2;
  const left = output.length - MAX_OUTPUT_CHARS;
  return `${output.slice(0, half)}\n… ${left} characters left out …\n${output.slice(-half)}`;
}
