import type { SandboxHost } from "../sandboxes.ts";

/** Begins every impostor: how to write frames, and what to do with orders. */
const PRELUDE = `
const frame = (header, payload = Buffer.alloc(0)) => {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const lengths = Buffer.alloc(8);
  lengths.writeUInt32LE(text.length, 0);
  lengths.writeUInt32LE(payload.length, 4);
  return Buffer.concat([lengths, text, payload]);
};
const say = (...of) => process.stdout.write(frame(...of));
const ready = () => say({ type: "ready" });
const onOrder = (act) => process.stdin.on("data", () => act());
setInterval(() => undefined, 1000);
`;

/**
 * A sandbox in which the host of modules is another program: what it could become when a module has taken it over. The
 * script is CommonJS and has `frame`, `say`, `ready` and `onOrder`.
 */
export function impostor(host: SandboxHost, script: string): SandboxHost {
  return {
    slots: host.slots,
    reachable: (source) => host.reachable(source),
    start: (spec) =>
      host.start({ ...spec, argv: [spec.argv[0] ?? "", "--input-type=commonjs", "-e", PRELUDE + script] }),
  };
}
