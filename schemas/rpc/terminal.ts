import { z } from "zod";
import { idSchema } from "../ids.ts";
import { defineMethod } from "./method.ts";
import { environmentSchema, networkSchema } from "./run.ts";

const columns = z.number().int().min(1).max(1000);
const rows = z.number().int().min(1).max(1000);

const view = z.object({
  terminal_id: idSchema,
  project_id: idSchema,
  command: z.string(),
  started_at: z.iso.datetime(),
  /** Whether some connection shows it; one that nobody shows is closed after a while. */
  attached: z.boolean(),
  columns,
  rows,
});

const example: z.input<typeof view> = {
  terminal_id: "trm_01",
  project_id: "prj_01",
  command: "bash",
  started_at: "2026-11-28T10:00:00.000Z",
  attached: true,
  columns: 80,
  rows: 24,
};

const closed = z.object({ terminal_id: idSchema, closed: z.boolean() });

export const terminalMethods = {
  "terminal.open": defineMethod({
    summary:
      "Open a shell on the project's files. Its output comes as `terminal.output {terminal_id, seq, data}`, its end as `terminal.exit {terminal_id, exit_code, signal}`; what it changes becomes revisions as it goes.",
    access: "developer",
    streaming: true,
    params: z.strictObject({
      project_id: idSchema,
      columns: columns.default(80),
      rows: rows.default(24),
      /** Program to run instead of the shell. */
      command: z.string().min(1).max(4096).optional(),
      args: z.array(z.string().max(4096)).max(100).default([]),
      env: environmentSchema.default({}),
      network: networkSchema.default(false),
    }),
    result: view,
    errors: ["NotFound", "EngineUnavailable", "Forbidden", "QuotaExceeded"],
    example: { params: { project_id: "prj_01", columns: 80, rows: 24 }, result: example },
  }),
  "terminal.attach": defineMethod({
    summary:
      "Show a terminal on this connection, after a reconnect say; what was shown last comes again. Another connection that showed it does so no more.",
    access: "developer",
    streaming: true,
    params: z.strictObject({ terminal_id: idSchema }),
    result: view,
    errors: ["NotFound"],
    example: { params: { terminal_id: "trm_01" }, result: example },
  }),
  "terminal.input": defineMethod({
    summary:
      "Type into a terminal: text and control characters as a keyboard sends them (\\u0003 is Ctrl+C).",
    access: "developer",
    params: z.strictObject({ terminal_id: idSchema, data: z.string().min(1).max(65_536) }),
    result: z.object({ terminal_id: idSchema }),
    errors: ["NotFound"],
    example: { params: { terminal_id: "trm_01", data: "ls\r" }, result: { terminal_id: "trm_01" } },
  }),
  "terminal.ack": defineMethod({
    summary:
      "Say up to which `seq` the output has been shown. Whoever acknowledges nothing is sent 512 KiB, then no more until it does.",
    access: "developer",
    params: z.strictObject({ terminal_id: idSchema, seq: z.number().int().min(0) }),
    result: z.object({ terminal_id: idSchema }),
    errors: ["NotFound"],
    example: { params: { terminal_id: "trm_01", seq: 12 }, result: { terminal_id: "trm_01" } },
  }),
  "terminal.resize": defineMethod({
    summary: "Tell a terminal its size.",
    access: "developer",
    params: z.strictObject({ terminal_id: idSchema, columns, rows }),
    result: z.object({ terminal_id: idSchema }),
    errors: ["NotFound"],
    example: {
      params: { terminal_id: "trm_01", columns: 120, rows: 40 },
      result: { terminal_id: "trm_01" },
    },
  }),
  "terminal.list": defineMethod({
    summary: "The caller's terminals, oldest first.",
    access: "viewer",
    params: z.strictObject({ project_id: idSchema.optional() }),
    result: z.object({ terminals: z.array(view) }),
    errors: ["NotFound"],
    example: { params: {}, result: { terminals: [example] } },
  }),
  "terminal.close": defineMethod({
    summary: "End a terminal and everything that runs in it.",
    access: "developer",
    params: z.strictObject({ terminal_id: idSchema }),
    result: closed,
    errors: ["NotFound"],
    example: { params: { terminal_id: "trm_01" }, result: { terminal_id: "trm_01", closed: true } },
  }),
};
