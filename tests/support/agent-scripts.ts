import type { ChatBody, Reply } from "./provider-replies.ts";

/** How the result of a scripted run is judged in the end. */
export const OUTCOMES = ["accepted", "repaired", "refused"] as const;
type Outcome = (typeof OUTCOMES)[number];

/** What a model says in one turn: replies with tool calls one after the other, the last one without. */
export type Round = readonly Reply[];

/** One agent's runs on the sample project: one round for the prompt, one for each time its result is refused. */
export type AgentScript = Readonly<Record<Outcome, readonly Round[]>>;

/** A small project with tests that pass, an error that they do not find, a weakness and a page. */
export const SAMPLE: Readonly<Record<string, string>> = {
  "package.json": '{\n  "name": "stats",\n  "type": "module",\n  "scripts": { "test": "node --test" }\n}\n',
  "README.md": "# Stats\n\nSums and averages. Test it with `npm test`.\n",
  "src/stats.js":
    "export const sum = (list) => list.reduce((total, each) => total + each, 0);\n\nexport const average = (list) => sum(list) / list.length;\n",
  "src/stats.test.js":
    'import assert from "node:assert/strict";\nimport { test } from "node:test";\nimport { average, sum } from "./stats.js";\n\ntest("sum", () => assert.equal(sum([1, 2]), 3));\ntest("average", () => assert.equal(average([1, 3]), 2));\n',
  "src/page.js": "// A greeting as HTML.\nexport const page = (name) => '<p>Hello ' + name + '</p>';\n",
};

/** Tools by the names and fields that both runners have. */
const read = (filePath: string): Reply => call("read", { filePath });
const write = (filePath: string, content: string): Reply => call("write", { filePath, content });
const edit = (filePath: string, oldString: string, newString: string): Reply =>
  call("edit", { filePath, oldString, newString });
const bash = (command: string): Reply => call("bash", { command, description: "Runs the tests" });
const say = (text: string): Reply => ({ text });

function call(name: string, args: Record<string, unknown>): Reply {
  return { text: `I use ${name}. `, toolCalls: [{ name, arguments: args }] };
}

const block = (label: string, content: string) => `\`\`\`${label}\n${content}\n\`\`\``;

const TEST_HEAD = 'import assert from "node:assert/strict";\nimport { test } from "node:test";\n';
const MEDIAN = "export const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];\n";

const codeAgent: AgentScript = {
  accepted: [
    [
      read("src/stats.js"),
      edit(
        "src/stats.js",
        "export const average",
        "export const least = (list) => Math.min(...list);\n\nexport const average",
      ),
      bash("node --test"),
      say("I added `least`; the tests pass."),
    ],
  ],
  repaired: [
    [write("src/median.js", MEDIAN.replace("=> list", "=> = list")), say("I added `median`.")],
    [read("src/median.js"), write("src/median.js", MEDIAN), say("I mended `median`.")],
  ],
  refused: [
    [read("src/stats.js"), edit("src/stats.js", "total + each", "total - each"), say("I changed `sum`.")],
    [say("It is right as it is.")],
  ],
};

const sumTest = (expected: number) =>
  `${TEST_HEAD}import { sum } from "./stats.js";\n\ntest("sum of nothing", () => assert.equal(sum([]), ${expected}));\n`;

const testAgent: AgentScript = {
  accepted: [
    [
      read("src/stats.js"),
      write("src/empty.test.js", sumTest(0)),
      bash("node --test"),
      say("I tested `sum` of nothing."),
    ],
  ],
  repaired: [
    [write("src/empty.test.js", sumTest(1)), say("I tested `sum` of nothing.")],
    [
      read("src/empty.test.js"),
      edit("src/empty.test.js", "sum([]), 1", "sum([]), 0"),
      say("I mended the test."),
    ],
  ],
  refused: [
    [
      read("src/stats.test.js"),
      edit("src/stats.test.js", 'test("average", () =>', 'test("average", { skip: true }, () =>'),
      write("src/empty.test.js", sumTest(0)),
      say("I tested `sum` of nothing."),
    ],
    [say("The average does not matter.")],
  ],
};

const PREVIEW =
  '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n<title>Stats</title>\n<style>body { font: 1rem/1.5 sans-serif; }</style>\n</head>\n<body>\n<main><h1>Stats</h1><p>Sum: <output>3</output></p></main>\n</body>\n</html>\n';
const REASONS =
  "# The result at a glance\n\nPreview: `stats.html`. People come for one number, so it stands alone at the top. While it is worked out, the\nplace stays empty and keeps its size; an error is told there in words. One column on every screen, one heading for\nscreen readers, and nothing that needs a mouse.\n";

const designAgent: AgentScript = {
  accepted: [
    [
      read("README.md"),
      write("design/stats.html", PREVIEW),
      write("design/stats.md", REASONS),
      say("I propose one number at the top: design/stats.html."),
    ],
  ],
  repaired: [
    [
      write("design/stats.html", PREVIEW.replace("<main>", '<main><img src="https://x.test/a.png" alt="">')),
      write("design/stats.md", REASONS),
      say("I propose one number at the top."),
    ],
    [read("design/stats.html"), write("design/stats.html", PREVIEW), say("The preview loads nothing now.")],
  ],
  refused: [[write("design/stats.md", REASONS), say("I propose one number.")], [say("Words are enough.")]],
};

const EMPTY_TEST = `${TEST_HEAD}import { average } from "./stats.js";\n\ntest("average of nothing", () => assert.equal(average([]), 0));\n`;
const MEND = [
  read("src/stats.js"),
  edit("src/stats.js", "sum(list) / list.length", "(list.length === 0 ? 0 : sum(list) / list.length)"),
];
const CAUSE = "The average of nothing was divided by zero; it is 0 now.";

const debugAgent: AgentScript = {
  accepted: [
    [
      write("src/empty.test.js", EMPTY_TEST),
      bash("node --test src/empty.test.js"),
      ...MEND,
      bash("node --test"),
      say(`${CAUSE}\n\n${block("repro", "node --test src/empty.test.js")}`),
    ],
  ],
  repaired: [
    [write("src/empty.test.js", EMPTY_TEST), ...MEND, say(CAUSE)],
    [say(`${CAUSE}\n\n${block("repro", "node --test src/empty.test.js")}`)],
  ],
  refused: [
    [...MEND, say(`${CAUSE}\n\n${block("repro", "node --test src/stats.test.js")}`)],
    [say(`${CAUSE}\n\n${block("repro", "node --test src/stats.test.js")}`)],
  ],
};

const finding = (line: number) =>
  block(
    "findings",
    JSON.stringify([
      {
        file: "src/page.js",
        line,
        severity: "high",
        cwe: "CWE-79",
        title: "The name becomes part of the page as it is",
        detail: "A name with markup in it runs as a script of the page.",
        fix: "Escape it.",
      },
    ]),
  );

const securityAgent: AgentScript = {
  accepted: [[read("src/page.js"), say(`One weakness.\n\n${finding(2)}`)]],
  repaired: [
    [read("src/page.js"), say(`One weakness.\n\n${finding(99)}`)],
    [say(`At its line.\n\n${finding(2)}`)],
  ],
  refused: [[read("src/page.js"), say("The page has a weakness.")], [say("As I said.")]],
};

const SENTENCE = "Sums and averages.";

const docAgent: AgentScript = {
  accepted: [
    [
      read("README.md"),
      edit("README.md", SENTENCE, `${SENTENCE} See [the code](src/stats.js).`),
      read("src/page.js"),
      edit("src/page.js", "A greeting as HTML.", "A greeting as HTML; the name must be escaped."),
      say("README and a comment."),
    ],
  ],
  repaired: [
    [read("README.md"), edit("README.md", SENTENCE, `${SENTENCE} See [more](docs/more.md).`), say("README.")],
    [
      read("README.md"),
      edit("README.md", "[more](docs/more.md)", "[the code](src/stats.js)"),
      say("README, with its link."),
    ],
  ],
  refused: [
    [read("src/page.js"), edit("src/page.js", "Hello", "Welcome"), say("The greeting is friendlier.")],
    [say("It is only a word.")],
  ],
};

/** By the agents' names. */
export const AGENT_SCRIPTS: Readonly<Record<string, AgentScript>> = {
  CodeAgent: codeAgent,
  TestAgent: testAgent,
  DesignAgent: designAgent,
  DebugAgent: debugAgent,
  SecurityAgent: securityAgent,
  DocAgent: docAgent,
};

/**
 * The reply for a request of such a run, from the request alone: the user's messages tell the round, the model's
 * since then the step. For a rule of the scripted provider.
 */
export function scriptedReply(rounds: readonly Round[]): (body: ChatBody) => Reply {
  return (body) => {
    const roles = (body.messages ?? []).map((message) => message.role);
    const asked = roles.filter((role) => role === "user").length;
    const round = rounds[Math.min(Math.max(asked, 1), rounds.length) - 1] ?? [];
    const step = roles.slice(roles.lastIndexOf("user") + 1).filter((role) => role === "assistant").length;
    return round[Math.min(step, round.length - 1)] ?? say("There is nothing to say.");
  };
}
