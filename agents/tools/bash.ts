import { z } from "zod";
import { shorten } from "./text.ts";
import { defineTool } from "./tool.ts";

/** A run's watchdog takes a longer silence of a tool for its end. */
const MAX_COMMAND_MS = 120_000;

export const bash = defineTool({
  name: "bash",
  permission: "bash",
  description: [
    "Runs a shell command in the working directory, in a sandbox of its own; errors are part of the output.",
    `It is ended after ${MAX_COMMAND_MS / 1000} seconds. Everything it started ends with it, background processes`,
    "too: start a server and use it within one command. /tmp is empty each time; files in the working directory",
    "stay. There is no terminal and nobody to answer questions. Use read, edit, grep and glob for files.",
  ].join(" "),
  params: z.object({
    command: z.string().min(1).describe("The command"),
    timeout: z.coerce
      .number()
      .int()
      .positive()
      .optional()
      .describe(`When to end it, ms (at most and by default ${MAX_COMMAND_MS})`),
    description: z.string().optional().describe("What it does, in five to ten words"),
  }),
  // What is run, not what the model says of it; opencode shows the same.
  title: ({ command }) => command,
  async run({ command, timeout = MAX_COMMAND_MS }, { host, signal, outputChars }) {
    const timeoutMs = Math.min(timeout, MAX_COMMAND_MS);
    const result = await host.exec(command, { timeoutMs, signal, outputBytes: outputChars });
    const output = shorten(result.output.trimEnd(), outputChars);
    const notes: string[] = [];
    if (result.truncated) notes.push("The output was cut; run it again with head, tail or grep to see more.");
    if (result.timedOut) notes.push(`The command was ended after ${timeoutMs} ms.`);
    else if (result.code === null) notes.push("The command was ended from outside.");
    else if (result.code !== 0) notes.push(`Exit code ${result.code}.`);
    const told = notes.map((note) => `(${note})`).join("\n");
    if (output === "") return told || "(No output.)";
    return told === "" ? output : `${output}\n${told}`;
  },
});
