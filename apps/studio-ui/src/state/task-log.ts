import type { Finding, TaskError, TaskEvent, TaskState, Usage } from "#schemas";

/** What a person sees of a task's event log, folded from its events one by one. */
export interface TaskLog {
  lastSeq: number;
  state: TaskState;
  attempt: number;
  blocks: Block[];
  usage?: Usage;
  changeId?: string;
  error?: TaskError;
  done: boolean;
}

interface TextBlock {
  /** `note`: what the studio itself has to say of the run. */
  kind: "text" | "thought" | "note";
  key: number;
  text: string;
}

export interface ToolBlock {
  kind: "tool";
  key: number;
  callId: string;
  name: string;
  title: string;
  status: "pending" | "running" | "completed" | "failed";
  output: string;
}

/** How a result was judged, with what was run for it. */
export interface ValidationBlock {
  kind: "validation";
  key: number;
  round: number;
  passed: boolean;
  problems: readonly string[];
  checks: readonly { name: string; passed: boolean; output: string }[];
}

export interface FindingsBlock {
  kind: "findings";
  key: number;
  findings: readonly Finding[];
}

export type Block = TextBlock | ToolBlock | ValidationBlock | FindingsBlock;

export const emptyLog: TaskLog = { lastSeq: 0, state: "pending", attempt: 0, blocks: [], done: false };

/** Fold one event; an event already seen changes nothing (a reconnect may repeat one). */
export function foldEvent(log: TaskLog, event: TaskEvent): TaskLog {
  if (event.seq <= log.lastSeq) return log;
  const next: TaskLog = { ...log, lastSeq: event.seq };
  switch (event.type) {
    case "state":
      next.state = event.state;
      // A new attempt starts from nothing, and so does what is shown of it.
      if (event.attempt !== undefined && event.attempt !== log.attempt) {
        next.attempt = event.attempt;
        next.blocks = [];
      }
      if (event.note !== undefined) {
        next.blocks = [...next.blocks, { kind: "note", key: event.seq, text: event.note }];
      }
      return next;
    case "text":
    case "thought":
      next.blocks = appendText(log.blocks, event.type, event.seq, event.delta);
      return next;
    case "tool":
      next.blocks = upsertTool(log.blocks, event);
      return next;
    case "usage":
      next.usage = {
        input_tokens: event.input_tokens,
        output_tokens: event.output_tokens,
        cost_microcredits: event.cost_microcredits,
      };
      return next;
    case "validation": {
      const { round, passed, problems, checks } = event;
      next.blocks = [...next.blocks, { kind: "validation", key: event.seq, round, passed, problems, checks }];
      return next;
    }
    case "findings":
      next.blocks = [...next.blocks, { kind: "findings", key: event.seq, findings: event.findings }];
      return next;
    case "change":
      next.changeId = event.change_id;
      return next;
    case "error":
      next.error = withoutUndefined(event);
      return next;
    case "done":
      next.state = event.state;
      next.done = true;
      if (event.change_id !== undefined) next.changeId = event.change_id;
      if (event.error !== undefined) next.error = event.error;
      return next;
  }
}

function withoutUndefined(error: TaskError): TaskError {
  return error.hint === undefined
    ? { code: error.code, message: error.message }
    : { code: error.code, message: error.message, hint: error.hint };
}

function appendText(blocks: Block[], kind: "text" | "thought", key: number, delta: string): Block[] {
  const last = blocks.at(-1);
  if (last !== undefined && last.kind === kind) {
    return [...blocks.slice(0, -1), { ...last, text: last.text + delta }];
  }
  return [...blocks, { kind, key, text: delta }];
}

function upsertTool(blocks: Block[], event: Extract<TaskEvent, { type: "tool" }>): Block[] {
  const at = blocks.findIndex((block) => block.kind === "tool" && block.callId === event.call_id);
  const before = at < 0 ? undefined : blocks[at];
  const known = before?.kind === "tool" ? before : undefined;
  const block: Block = {
    kind: "tool",
    key: known?.key ?? event.seq,
    callId: event.call_id,
    name: event.name === "" ? (known?.name ?? "") : event.name,
    title: event.title ?? known?.title ?? "",
    status: event.status,
    output: event.output ?? known?.output ?? "",
  };
  return at < 0 ? [...blocks, block] : blocks.with(at, block);
}
