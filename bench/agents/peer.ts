import { setTimeout as sleep } from "node:timers/promises";
import { startScriptedProvider } from "../../tests/support/provider.ts";
import type { ChatBody, Reply } from "../../tests/support/provider-replies.ts";
import { ProcessTree, treeBytes } from "./process-tree.ts";
import { MARK, STEPS } from "./task.ts";

/**
 * The model of all sessions, in a process of its own, which also counts what programs below the measured one use.
 * It answers nobody until so many have asked, so that all of them are at work at once.
 */

export type Question =
  | { readonly ask: "begin"; readonly round: string; readonly sessions: number }
  /** Answer all that wait. */
  | { readonly ask: "go" }
  | { readonly ask: "memory"; readonly pid: number }
  | { readonly ask: "end" };

export interface Asked {
  /** When each session asked first, ms since the epoch; shorter than the sessions when they could not all be held. */
  readonly at: readonly (number | undefined)[];
}

export interface Answers {
  begin: Asked;
  go: null;
  memory: { readonly bytes: number };
  /** Processor time of the programs since the beginning, ms. */
  end: { readonly cpuMs: number };
}

const LOOK_MS = 250;
/** Without a further session asking for so long, those that did are let go. */
const STALLED_MS = 45_000;
const POLL_MS = 5;

const root = process.ppid;
const provider = await startScriptedProvider();
let round = "";
let asked: (number | undefined)[] = [];
let count = 0;
let lastAt = 0;
let gate = Promise.withResolvers<void>();
let tree = new ProcessTree(root);
const timer = setInterval(() => tree.look(), LOOK_MS);

provider.script({ prompt: MARK, reply: (body, { prompt }) => replyTo(body, prompt) });
process.on("message", async (question: Question) => process.send?.(await answer(question)));
process.on("disconnect", () => process.exit(0));
process.send?.({ url: provider.baseUrl });

function replyTo(body: ChatBody, prompt: string): Reply {
  // The one for a session's title.
  if ((body.tools?.length ?? 0) === 0) return { text: "Exact sums" };
  const step = (body.messages ?? []).filter(({ role }) => role === "assistant").length;
  const reply = STEPS[Math.min(step, STEPS.length - 1)] ?? {};
  const [, of, index = ""] = MARK.exec(prompt) ?? [];
  if (of !== round || step > 0 || asked[Number(index)] !== undefined) return reply;
  lastAt = performance.timeOrigin + performance.now();
  asked[Number(index)] = lastAt;
  count += 1;
  return { ...reply, until: gate.promise };
}

async function answer(question: Question): Promise<Answers[Question["ask"]]> {
  if (question.ask === "begin") return await begin(question);
  if (question.ask === "memory") return { bytes: treeBytes(question.pid) };
  if (question.ask === "go") {
    gate.resolve();
    return null;
  }
  tree.look();
  return { cpuMs: tree.cpuMs };
}

async function begin({ round: name, sessions }: Extract<Question, { ask: "begin" }>): Promise<Asked> {
  tree = new ProcessTree(root);
  provider.requests.length = 0;
  gate = Promise.withResolvers();
  asked = Array.from({ length: sessions });
  [round, count, lastAt] = [name, 0, performance.timeOrigin + performance.now()];
  while (count < sessions && performance.timeOrigin + performance.now() - lastAt < STALLED_MS)
    await sleep(POLL_MS);
  return { at: asked };
}
process.on("exit", () => clearInterval(timer));
