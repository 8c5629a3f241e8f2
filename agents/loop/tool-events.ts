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
  readonly title?: string;
  readonly input?: Readonly<Record<string, unknown>>;
  readonly output?: string;
}

/** A tool's event as watchers get it: bounded, with paths as the project has them. `directory`: the working one. */
export function toolEvent(moment: ToolMoment, directory: string): ToolEvent {
  const { call_id, name, status, title, input, output = "" } = moment;
  const clean = (text: string) => cleanPaths(text, directory);
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

/** Where the files lie while the agent works is nothing a watcher knows. */
export function cleanPaths(text: string, directory: string): string {
  if (!text.includes(directory)) return text;
  return text.replaceAll(`${directory}/`, "").replaceAll(directory, ".");
}

function shownValue(value: unknown, clean: (text: string) => string): unknown {
  if (typeof value === "number" || typeof value === "boolean") return value;
  const text = clean(typeof value === "string" ? value : JSON.stringify(value));
  return text.length > MAX_INPUT_CHARS ? `${text.slice(0, MAX_INPUT_CHARS)}…` : text;
}

/** Beginning and end: errors stand at the end. */
function endsOf(output: string): string {
  const half = MAX_OUTPUT_CHARS / 2;
  const left = output.length - MAX_OUTPUT_CHARS;
  return `${output.slice(0, half)}\n… ${left} characters left out …\n${output.slice(-half)}`;
}
