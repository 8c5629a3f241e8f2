import type { Texts } from "./texts.ts";
import type { DemoCall, Toolbox } from "./tools.ts";

/** One turn: a sentence and the tool to call. What the tool answered comes back. */
interface Turn {
  say: string;
  call: DemoCall;
}

export interface ToolResult {
  text: string;
  failed: boolean;
}

/** A script says one turn after another and ends with its last words. It never says a turn twice. */
export type Script = Generator<Turn, string, ToolResult>;

export interface Stage {
  prompt: string;
  texts: Texts;
  tools: Toolbox;
}

const GREETING = "src/greeting.js";
const FAREWELL = "src/farewell.js";
const FAREWELL_TEST = "src/farewell.test.js";
const DEMO_FILE = "DEMO.md";
/** Where the next entry of the demo file goes; unique in it, so that an edit finds it. */
const MARKER = "<!-- demo: the next entry goes above this line -->";
const LONGEST_QUOTE = 2000;

/** The sample task: a farewell beside the greeting, its test, and the tests run. */
export function* farewell(stage: Stage): Script {
  const { texts, tools } = stage;
  const read = tools.call("read", { path: GREETING });
  let seen: ToolResult | undefined;
  if (read !== undefined) seen = yield { say: `${texts.label} ${texts.look}`, call: read };
  const preface =
    seen === undefined ? `${texts.label} ` : seen.failed ? texts.notThere(GREETING) : texts.looked(GREETING);
  const files = farewellFiles(seen?.failed === false ? seen.text : "");
  const written: string[] = [];
  const refused: string[] = [];
  for (const [path, content] of files) {
    const say = `${written.length + refused.length === 0 ? preface : ""}${texts.write(path)}`;
    const done = yield* write(stage, path, content, say);
    if (done !== undefined) (done ? written : refused).push(path);
  }
  const tested = written.length === files.length ? yield* runTests(stage) : "";
  return lastWords(texts, [
    written.length > 0 ? texts.done(written) : "",
    refused.length > 0 ? texts.failed(refused) : "",
    written.length + refused.length === 0 ? texts.nothing : tested,
    written.length > 0 ? texts.review : "",
  ]);
}

/** Any other prompt: there is no AI to follow it, so it is written down where a change can be reviewed. */
export function* note(stage: Stage): Script {
  const { texts, tools, prompt } = stage;
  const quote = prompt.slice(0, LONGEST_QUOTE).replace(/^/gm, "> ");
  const entry = `${texts.demoFile.entry}\n\n${quote}\n\n`;
  const content = `${texts.demoFile.heading}\n${entry}${MARKER}\n`;
  const before = yield* lookFor(stage, DEMO_FILE, `${texts.label} ${texts.lookFor(DEMO_FILE)}`);
  let done: boolean | undefined;
  if (before.includes(MARKER)) {
    const edit = tools.call("edit", { path: DEMO_FILE, before: MARKER, after: `${entry}${MARKER}` });
    if (edit !== undefined) done = !(yield { say: texts.write(DEMO_FILE), call: edit }).failed;
  }
  if (done !== true) done = yield* write(stage, DEMO_FILE, content, texts.write(DEMO_FILE));
  const outcome =
    done === undefined ? texts.nothing : done ? texts.noted(DEMO_FILE) : texts.failed([DEMO_FILE]);
  return lastWords(texts, [outcome, texts.needsKey]);
}

/** What a file holds, nothing when it is not there. Searched for first: a failed read looks like a mishap. */
function* lookFor({ tools, texts }: Stage, path: string, say: string): Generator<Turn, string, ToolResult> {
  const glob = tools.call("glob", { pattern: path });
  const read = tools.call("read", { path });
  if (glob !== undefined) {
    const found = yield { say, call: glob };
    if (found.failed || !found.text.includes(path)) return "";
  }
  if (read === undefined) return "";
  const { text, failed } = yield { say: glob === undefined ? say : texts.again(path), call: read };
  return failed ? "" : text;
}

/** Whether a file was written; undefined without a tool for it. A file that is there is read first. */
function* write(
  { tools, texts }: Stage,
  path: string,
  content: string,
  say: string,
): Generator<Turn, boolean | undefined, ToolResult> {
  const call = tools.call("write", { path, content });
  if (call === undefined) return undefined;
  if (!(yield { say, call }).failed) return true;
  const read = tools.call("read", { path });
  if (read === undefined) return false;
  if ((yield { say: texts.again(path), call: read }).failed) return false;
  return !(yield { say: texts.write(path), call }).failed;
}

function* runTests({ tools, texts }: Stage): Generator<Turn, string, ToolResult> {
  const call = tools.call("bash", { command: "node --test", description: texts.testDescription });
  if (call === undefined) return texts.untested;
  const { text } = yield { say: texts.test, call };
  if (/not found|no such file|cannot find|enoent/i.test(text) && !/\b(pass|tests) \d/.test(text))
    return texts.noNode;
  return /\bpass [1-9]/.test(text) && /\bfail 0\b/.test(text) ? texts.passed : texts.testsFailed;
}

function lastWords(texts: Texts, sentences: string[]): string {
  return [texts.label, ...sentences].filter((sentence) => sentence !== "").join(" ");
}

/** In the manner of the greeting that was read: its module system and its language. */
function farewellFiles(greeting: string): [path: string, content: string][] {
  const common = /module\.exports|require\(/.test(greeting);
  const words = /Hallo|Guten Tag/.test(greeting) ? "Auf Wiedersehen" : "Goodbye";
  const code = [
    "/** A farewell for one person. */",
    `${common ? "" : "export "}function farewell(name) {`,
    `  return \`${words}, \${name}!\`;`,
    "}",
    ...(common ? ["", "module.exports = { farewell };"] : []),
    "",
  ];
  const imports = common
    ? [
        'const assert = require("node:assert/strict");',
        'const { test } = require("node:test");',
        'const { farewell } = require("./farewell.js");',
      ]
    : [
        'import assert from "node:assert/strict";',
        'import { test } from "node:test";',
        'import { farewell } from "./farewell.js";',
      ];
  const test = [
    ...imports,
    "",
    'test("says goodbye by name", () => {',
    `  assert.equal(farewell("Ada"), "${words}, Ada!");`,
    "});",
    "",
  ];
  return [
    [FAREWELL, code.join("\n")],
    [FAREWELL_TEST, test.join("\n")],
  ];
}
