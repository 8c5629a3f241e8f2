/**
 * Keeps the terminals, in a process of its own which starts no other: the package for terminals opens our end so that
 * every child would inherit it, and with it somebody's terminal.
 */
import type { FromKeeper, ToKeeper } from "./protocol.ts";
import type { Hello } from "./streams.ts";
import { Terminals } from "./terminals.ts";

const terminals = new Terminals();
let hello: Hello | undefined;

function tell(message: FromKeeper): void {
  if (process.connected) process.send?.(message, () => undefined);
}

async function open({ request }: Extract<ToKeeper, { type: "open" }>): Promise<void> {
  const { id } = request;
  try {
    if (hello === undefined) throw new Error("open before hello");
    tell({ type: "opened", id, path: await terminals.open(hello, request) });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    tell({ type: "failed", id, message: text.split("\n")[0] ?? "" });
  }
}

for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => undefined);
process.on("disconnect", () => process.exit(0));
process.on("message", (message: ToKeeper) => {
  if (message.type === "hello") hello = message;
  else if (message.type === "open") void open(message);
  else if (message.type === "resize") terminals.resize(message.id, message.size);
  else terminals[message.type](message.id);
});
