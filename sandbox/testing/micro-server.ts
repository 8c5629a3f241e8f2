/** A server to be killed: has a machine in use and one ready. `micro-server.ts DATA_DIR` */
import { join } from "node:path";
import { MicroEngine } from "../engines/micro/engine.ts";
import { allProcesses, treeOf } from "../process-tree.ts";
import { openSandboxes } from "../sandboxes.ts";
import { silent } from "./harness.ts";

const [, , dataDir = ""] = process.argv;
const sandboxes = await openSandboxes({ dataDir, log: silent });
const engine = await MicroEngine.open({
  host: sandboxes,
  dir: join(dataDir, "micro"),
  settings: { warm: { node: 1, python: 0 } },
  log: silent,
});
await engine.warmed();
const vm = await engine.start({ image: "node" });
await engine.warmed();
await vm.execute({ argv: ["sh", "-c", "(setsid sleep 1000 &); true"] });
const emulators = treeOf(sandboxes.launcherPid ?? 0, allProcesses()).filter(({ command }) =>
  command.startsWith("qemu-system"),
);
process.stdout.write(`${JSON.stringify({ warm: engine.warm, emulators })}\n`);
