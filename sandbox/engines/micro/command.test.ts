import { expect, it } from "vitest";
import { commandOf, type ExecuteRequest } from "./command.ts";
import { isDefault, MICRO_DEFAULTS, machineOf, type VmSpec } from "./settings.ts";

const MIB = 1024 * 1024;
const invalid = expect.objectContaining({
  code: "InvalidParams",
  details: expect.objectContaining({ hint: expect.stringMatching(/./) }),
});

it("[SB-micro] makes a script of code, and keeps a program as it is", () => {
  const node = commandOf({ code: "1", args: ["a b"], files: { "lib/x.js": "2" } }, "node", 7);
  expect(node.argv).toEqual(["node", "/work/.script-7.js", "a b"]);
  expect(node.files.map(({ path, data }) => [path, String(data)])).toEqual([
    ["/work/lib/x.js", "2"],
    ["/work/.script-7.js", "1"],
  ]);
  expect(commandOf({ code: "" }, "python", 1).argv).toEqual(["python3", "/work/.script-1.py"]);
  expect(commandOf({ argv: ["ls", ""] }, "node", 1)).toMatchObject({ argv: ["ls", ""], files: [] });
});

it.each<[string, ExecuteRequest]>([
  ["nothing to run", {}],
  ["two things to run", { code: "1", argv: ["ls"] }],
  ["an empty program", { argv: [""] }],
  ["a NUL in the program", { argv: ["a\0"] }],
  ["a NUL in an argument", { code: "1", args: ["\0"] }],
  ["a NUL in the environment", { code: "1", env: { A: "\0" } }],
  ["a variable without a name", { code: "1", env: { "": "" } }],
  ["a file outside", { code: "1", files: { "../etc/passwd": "" } }],
  ["an absolute file outside", { code: "1", files: { "/etc/passwd": "" } }],
  ["a file that is the directory", { code: "1", files: { ".": "" } }],
  ["a file that is a directory", { code: "1", files: { "a/": "" } }],
  ["no time", { code: "1", timeoutMs: 0 }],
  ["endless time", { code: "1", timeoutMs: Number.POSITIVE_INFINITY }],
  ["half a process", { code: "1", processes: 0.5 }],
  ["too much output", { code: "1", outputBytes: 1e12 }],
  ["too many bytes", { code: "1", files: { a: new Uint8Array(65 * MIB) } }],
])("[SB-micro] refuses %s", (_name, request) => {
  expect(() => commandOf(request, "node", 1)).toThrow(invalid);
});

it("[SB-micro] fills in the size of a machine, in whole MiB", () => {
  const machine = machineOf({ image: "node" }, MICRO_DEFAULTS);
  expect(machine).toEqual({ image: "node", ...MICRO_DEFAULTS.defaults, idleMs: MICRO_DEFAULTS.idleMs });
  expect(isDefault(machine, MICRO_DEFAULTS)).toBe(true);
  const other = machineOf({ image: "python", memoryBytes: 200 * MIB + 5, cpus: 2 }, MICRO_DEFAULTS);
  expect(other.memoryBytes).toBe(200 * MIB);
  expect(isDefault(other, MICRO_DEFAULTS)).toBe(false);
});

it.each<[string, Partial<VmSpec>]>([
  ["another image", { image: "perl" as "node" }],
  ["a network", { network: "all" as "none" }],
  ["little memory", { memoryBytes: MIB }],
  ["much memory", { memoryBytes: 1e12 }],
  ["no processor", { cpus: 0 }],
  ["half a processor", { cpus: 1.5 }],
  ["a disk larger than memory", { memoryBytes: 256 * MIB, diskBytes: 257 * MIB }],
  ["no patience", { idleMs: 0 }],
])("[SB-micro] refuses a machine with %s", (_name, spec) => {
  expect(() => machineOf({ image: "node", ...spec }, MICRO_DEFAULTS)).toThrow(invalid);
});
