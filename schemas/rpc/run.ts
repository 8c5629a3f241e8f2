import { z } from "zod";
import { idSchema } from "../ids.ts";
import { defineMethod } from "./method.ts";
import { encodingSchema, pathSchema } from "./project.ts";

const MAX_ARGS = 1000;
const MAX_TEXT = 128 * 1024;
const MAX_HOSTS = 50;

/**
 * Hosts a program may reach: `example.org` (ports 80 and 443), `example.org:8443`, `*.example.org`; true: all that
 * the operator allows; false or nothing: no network.
 */
export const networkSchema = z.union([z.boolean(), z.array(z.string().min(1).max(300)).max(MAX_HOSTS)]);

export const environmentSchema = z
  .record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.string().max(MAX_TEXT))
  .refine((env) => Object.keys(env).length <= 200, "At most 200 variables.");

const command = {
  project_id: idSchema,
  /** A program, found on the PATH inside; for a shell's syntax: `sh` with `-c`. */
  command: z.string().min(1).max(4096),
  args: z.array(z.string().max(MAX_TEXT)).max(MAX_ARGS).default([]),
  env: environmentSchema.default({}),
  /** Directory of the project to start in. */
  cwd: pathSchema.optional(),
  stdin: z
    .string()
    .max(1024 * 1024)
    .optional(),
  timeout_ms: z.number().int().min(1).max(86_400_000).optional(),
  network: networkSchema.default(false),
  encoding: encodingSchema.default("utf8"),
};

const outcome = z.object({
  process_id: idSchema,
  /** 0 to 255; null when a signal or a limit ended it. */
  exit_code: z.number().int().nullable(),
  signal: z.string().optional(),
  stdout: z.string(),
  stderr: z.string(),
  /** Whether output was left out; a line in it tells where and how much. */
  truncated: z.boolean(),
  duration_ms: z.number().int(),
  limit: z.enum(["time", "memory", "processes", "file", "output", "disk"]).optional(),
  /** The project's revision with what the program changed; absent when it changed nothing. */
  revision: z.number().int().optional(),
  /** What it changed collides with what the project has become meanwhile: a change to review. */
  change_id: idSchema.optional(),
  /** Changed files that are not in the revision, and why. */
  warnings: z.array(z.string()).optional(),
  /** Hosts it tried to reach and was not allowed to, with their ports. */
  refused_hosts: z.array(z.string()).optional(),
});

const exampleOutcome: z.input<typeof outcome> = {
  process_id: "run_01",
  exit_code: 0,
  stdout: "Grüße aus dem Rathaus\n",
  stderr: "",
  truncated: false,
  duration_ms: 84,
};

const process = z.object({
  process_id: idSchema,
  project_id: idSchema,
  kind: z.enum(["exec", "stream", "terminal"]),
  command: z.string(),
  started_at: z.iso.datetime(),
  memory_bytes: z.number().int(),
  cpu_ms: z.number().int(),
  /** Everything that runs in it, background jobs included; `pid` counts as seen from inside. */
  processes: z.array(
    z.object({
      pid: z.number().int(),
      parent_pid: z.number().int(),
      command: z.string(),
      state: z.enum(["running", "sleeping", "stopped", "waiting", "ended"]),
      memory_bytes: z.number().int(),
      cpu_ms: z.number().int(),
    }),
  ),
});

export const runMethods = {
  "run.exec": defineMethod({
    summary:
      "Run a program on the project's files, in a sandbox, and wait for its end. What it changes becomes a revision.",
    access: "developer",
    lasting: true,
    params: z.strictObject(command),
    result: outcome,
    errors: ["NotFound", "EngineUnavailable", "Forbidden", "QuotaExceeded", "Timeout"],
    example: {
      params: { project_id: "prj_01", command: "node", args: ["src/greeting.js"] },
      result: exampleOutcome,
    },
  }),
  "run.stream": defineMethod({
    summary:
      "As run.exec, with the output as `run.output {process_id, seq, stream, data}` while it comes, after `run.started {process_id, tag}`; the answer comes at the end, without output.",
    access: "developer",
    streaming: true,
    lasting: true,
    params: z.strictObject({ ...command, tag: z.string().max(200).optional() }),
    result: outcome,
    errors: ["NotFound", "EngineUnavailable", "Forbidden", "QuotaExceeded", "Timeout"],
    example: {
      params: { project_id: "prj_01", command: "npm", args: ["test"], tag: "tests" },
      result: { ...exampleOutcome, stdout: "" },
    },
  }),
  "run.kill": defineMethod({
    summary:
      "End a program and everything it started; with `pid`, send a signal to that process of its tree only.",
    access: "developer",
    params: z.strictObject({
      process_id: idSchema,
      pid: z.number().int().min(2).max(4_194_304).optional(),
      signal: z
        .enum(["SIGTERM", "SIGKILL", "SIGINT", "SIGHUP", "SIGSTOP", "SIGCONT", "SIGUSR1", "SIGUSR2"])
        .optional(),
    }),
    result: z.object({ process_id: idSchema, killed: z.boolean() }),
    errors: ["NotFound"],
    example: { params: { process_id: "run_01" }, result: { process_id: "run_01", killed: true } },
  }),
  "run.list": defineMethod({
    summary: "The caller's running programs and terminals, oldest first, with every process in them.",
    access: "viewer",
    params: z.strictObject({ project_id: idSchema.optional() }),
    result: z.object({ processes: z.array(process) }),
    errors: ["NotFound"],
    example: {
      params: { project_id: "prj_01" },
      result: {
        processes: [
          {
            process_id: "trm_01",
            project_id: "prj_01",
            kind: "terminal",
            command: "bash",
            started_at: "2026-11-28T10:00:00.000Z",
            memory_bytes: 4_200_000,
            cpu_ms: 20,
            processes: [
              {
                pid: 3,
                parent_pid: 2,
                command: "bash",
                state: "sleeping",
                memory_bytes: 4_200_000,
                cpu_ms: 20,
              },
            ],
          },
        ],
      },
    },
  }),
};
