import type { Reply } from "../../tests/support/provider-replies.ts";

/** What every session does: a file is read, a sentence of it edited, and said so; nothing is run to check it. */

/** The project. */
export const FILES: Readonly<Record<string, string>> = {
  "README.md": "# Stats\n\nSums.\n",
  "src/sum.js": "export const sum = (list) => list.reduce((total, each) => total + each, 0);\n",
  "src/average.js":
    'import { sum } from "./sum.js";\n\nexport const average = (list) => sum(list) / list.length;\n',
};

/** Told to the agent; the model finds the session by it. */
export const promptOf = (round: string, index: number) =>
  `Bench round ${round} session ${index}: say in README.md that the sums are exact.`;

export const MARK = /Bench round (\S+) session (\d+):/;

/** Reads, edits, answers. */
export const STEPS: readonly Reply[] = [
  { text: "I read the file first. ", toolCalls: [{ name: "read", arguments: { filePath: "README.md" } }] },
  {
    text: "Now I edit it. ",
    toolCalls: [
      {
        name: "edit",
        arguments: { filePath: "README.md", oldString: "Sums.", newString: "Sums, which are exact." },
      },
    ],
  },
  { text: "README.md says now that the sums are exact, as you asked; nothing else was changed." },
];
