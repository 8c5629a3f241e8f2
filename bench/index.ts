/** `npm run bench -- NAME`: each bench prints medians and ratios next to a peer, with the machine's load. */
import { loadavg } from "node:os";

const BENCHES = {
  "run-overhead": () => import("./run-overhead.ts"),
  gateway: () => import("./gateway.ts"),
  llm: () => import("./llm.ts"),
  sandbox: () => import("./sandbox/index.ts"),
  agents: () => import("./agents/index.ts"),
} satisfies Record<string, () => Promise<{ bench: () => Promise<void> }>>;

const name = process.argv[2];
const names = Object.keys(BENCHES) as (keyof typeof BENCHES)[];
const chosen = names.filter((each) => name === undefined || each === name);
if (chosen.length === 0) {
  console.error(`no bench is called "${name}"; there are: ${names.join(", ")}`);
  process.exit(2);
}
for (const each of chosen) {
  console.log(`\n## ${each} (load ${loadavg()[0]?.toFixed(1)} at the start)`);
  await (await BENCHES[each]()).bench();
  console.log(`(load ${loadavg()[0]?.toFixed(1)} at the end)`);
}
