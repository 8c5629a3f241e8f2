import { createServer } from "node:net";
import type { Sandboxes } from "../sandboxes.ts";
import { runNode } from "./harness.ts";

/** What a program inside finds when it looks around and tries things. */
export interface Inspection {
  uid: number;
  hostname: string;
  env: Record<string, string>;
  root: string[];
  initEnvironment: string;
  initCommand: string;
  pids: number[];
  interfaces: string[];
  status: Record<string, string>;
  /** What was tried -> "done" or the error's code. */
  attempts: Record<string, string>;
}

const LOOK_AROUND = `
const fs = require("fs"), net = require("net"), os = require("os"), cp = require("child_process");
const given = JSON.parse(process.env.GIVEN);
const attempts = {};
const attempt = (name, act) => { try { act(); attempts[name] = "done"; } catch (e) { attempts[name] = e.code || String(e); } };
for (const path of given.hidden) attempt("see " + path, () => fs.statSync(path));
for (const path of ["/x", "/usr/x", "/etc/x", "/etc/passwd", "/run/x", "/dev/x", "/opt/node/x", "/proc/sys/kernel/hostname"])
  attempt("write " + path, () => fs.writeFileSync(path, "x"));
for (const path of ["/tmp/x", "/dev/shm/x"]) attempt("write " + path, () => fs.writeFileSync(path, "x"));
attempt("become root", () => process.setuid(0));
attempt("read init memory", () => fs.readSync(fs.openSync("/proc/1/mem", "r+"), Buffer.alloc(1), 0, 1, 4096));
for (const command of ["unshare -U true", "unshare -r true", "unshare -m true", "unshare -n true", "mount -t tmpfs none /tmp", "chroot / true", "su -c true", "setpriv --reuid=0 true"])
  attempt(command, () => cp.execSync(command, { stdio: "ignore" }));
const connect = (name, options) => new Promise((resolve) => {
  const s = net.connect(options, () => { attempts[name] = "done"; s.destroy(); resolve(); });
  s.on("error", (e) => { attempts[name] = e.code; resolve(); });
  s.setTimeout(3000, () => { attempts[name] = "silence"; s.destroy(); resolve(); });
});
(async () => {
  await connect("connect to the host's loopback", { host: "127.0.0.1", port: given.port });
  await connect("connect to the internet", { host: "192.0.2.1", port: 80 });
  await connect("connect to the metadata service", { host: "169.254.169.254", port: 80 });
  await connect("connect to an abstract socket", { path: "\\0" + given.abstract });
  await require("dns/promises").lookup("example.com").then(() => { attempts.dns = "done"; }, (e) => { attempts.dns = e.code; });
  const status = {};
  for (const line of fs.readFileSync("/proc/self/status", "utf8").split("\\n")) { const [k, v] = line.split(":"); if (v) status[k] = v.trim(); }
  const { GIVEN, ...env } = process.env;
  console.log(JSON.stringify({
    uid: process.getuid(), hostname: os.hostname(), env, root: fs.readdirSync("/").sort(),
    initEnvironment: fs.readFileSync("/proc/1/environ", "utf8"), initCommand: fs.readFileSync("/proc/1/cmdline", "utf8"),
    pids: fs.readdirSync("/proc").map(Number).filter(Number.isInteger),
    interfaces: Object.keys(os.networkInterfaces()), status, attempts,
  }));
})();
`;

/** Look around in a sandbox. `hidden` are host paths that must not be there. */
export async function inspect(sandboxes: Sandboxes, hidden: string[]): Promise<Inspection> {
  const tcp = createServer((socket) => socket.destroy());
  const abstract = `cds-test-${process.pid}-${Math.random()}`;
  const unix = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => tcp.listen(0, "127.0.0.1", resolve));
  await new Promise<void>((resolve) => unix.listen(`\0${abstract}`, resolve));
  try {
    const address = tcp.address();
    const port = typeof address === "object" ? address?.port : 0;
    const GIVEN = JSON.stringify({ hidden, port, abstract });
    const outcome = await runNode(sandboxes, LOOK_AROUND, { env: { GIVEN, SECRET: "canary" } });
    if (outcome.code !== 0) throw new Error(`${JSON.stringify(outcome)}`);
    return JSON.parse(outcome.stdout);
  } finally {
    tcp.close();
    unix.close();
  }
}
