import { z } from "zod";
import { defineMethod } from "./method.ts";

const engine = z.object({
  name: z.enum(["fs", "run", "wasm", "micro"]),
  available: z.boolean(),
  /** How limits are enforced, where that depends on the machine. */
  tier: z.enum(["cgroup2", "cgroup1", "systemd", "rlimits"]).nullable(),
  /** What is missing, or which protection is weaker than it could be. */
  reasons: z.array(z.string()),
  hint: z.string().optional(),
});

export const sandboxMethods = {
  "sandbox.status": defineMethod({
    summary:
      "What can be run on this machine: the engines, the programming languages, the hosts that may be reached.",
    access: "viewer",
    lasting: true,
    params: z.strictObject({}),
    result: z.object({
      engines: z.array(engine),
      languages: z.array(z.object({ name: z.string(), version: z.string() })),
      hosts: z.array(z.string()),
    }),
    errors: [],
    example: {
      params: {},
      result: {
        engines: [
          { name: "fs", available: true, tier: null, reasons: [] },
          { name: "run", available: true, tier: "cgroup2", reasons: [] },
          { name: "wasm", available: true, tier: null, reasons: [] },
          {
            name: "micro",
            available: false,
            tier: null,
            reasons: ["The images are not built."],
            hint: "Run `npm run micro` once.",
          },
        ],
        languages: [{ name: "node", version: "v24.21.0" }],
        hosts: ["example.org"],
      },
    },
  }),
};
