/**
 * A process of its own for microsandbox's native library: its crashes and its environment (MSB_HOME) are not the
 * server's, and ending its group ends every machine. It leads its session, and goes when the server is gone.
 */
import type { ExecHandle, Sandbox } from "microsandbox";
import type { Ended, ExecuteOrder, FromHost, Order, StartOrder, ToHost } from "./protocol.ts";

const USER = "1000";
const WORK = "/work";

const machines = new Map<string, Sandbox>();
const running = new Map<number, ExecHandle>();
const library = await import("microsandbox");

function tell(message: FromHost): void {
  if (process.connected) process.send?.(message, () => undefined);
}

/** The root is read-only; what can be written is one small file system in the machine's memory per place. */
async function start(order: StartOrder): Promise<void> {
  const machine = await library.Sandbox.builder(order.name)
    .imageWith((image) => image.disk(order.rootfs).fstype("squashfs"))
    .cpus(order.cpus)
    .memory(order.memoryMib)
    .volume(WORK, (mount) => mount.tmpfs().size(order.diskMib).nosuid().nodev())
    .volume("/tmp", (mount) => mount.tmpfs().size(order.diskMib).nosuid().nodev())
    .disableNetwork()
    .security("restricted")
    .hostname("sandbox")
    .user(USER)
    .workdir(WORK)
    .pullPolicy("never")
    .ephemeral(true)
    .quietLogs()
    .create();
  machines.set(order.name, machine);
}

function machineOf(name: string): Sandbox {
  const machine = machines.get(name);
  if (machine === undefined) throw new Error("there is no such machine");
  return machine;
}

async function execute(id: number, order: ExecuteOrder): Promise<Ended> {
  const machine = machineOf(order.name);
  for (const { path, data } of order.files) await machine.fs().write(path, data);
  const [program = "", ...args] = order.argv;
  const handle = await machine.execStreamWith(program, (options) => {
    options.args(args).cwd(WORK).user(USER).envs(order.env).rlimit("nproc", order.processes);
    return order.stdin === undefined ? options.stdinNull() : options.stdinBytes(Buffer.from(order.stdin));
  });
  running.set(id, handle);
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    void handle.kill().catch(() => undefined);
  }, order.timeoutMs);
  try {
    let code = 0;
    for await (const event of handle) {
      if (event.kind === "stdout" || event.kind === "stderr")
        tell({ id, stream: event.kind, data: event.data });
      else if (event.kind === "exited") code = event.code;
    }
    return { code, timedOut };
  } finally {
    clearTimeout(timer);
    running.delete(id);
  }
}

async function carryOut(id: number, order: Order): Promise<unknown> {
  if (order.op === "start") return start(order);
  if (order.op === "execute") return execute(id, order);
  const machine = machineOf(order.name);
  if (order.op === "ping") return machine.ping();
  if (order.op === "stats") {
    const { memoryBytes, vcpuTimeNs } = await machine.metrics();
    return { memoryBytes, cpuMs: vcpuTimeNs / 1e6, processes: 1 };
  }
  machines.delete(order.name);
  return machine.kill();
}

process.on("disconnect", () => process.kill(-process.pid, "SIGKILL"));
process.on("message", (message: ToHost) => {
  if ("kill" in message) {
    void running
      .get(message.kill)
      ?.kill()
      .catch(() => undefined);
    return;
  }
  carryOut(message.id, message.order).then(
    (result) => tell({ id: message.id, result }),
    (error: unknown) =>
      tell({ id: message.id, error: error instanceof Error ? error.message : String(error) }),
  );
});
