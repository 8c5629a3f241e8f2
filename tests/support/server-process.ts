import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { TEST_ENV } from "./studio.ts";

export interface ServerProcess {
  child: ChildProcess;
  url: string;
}

/** The studio as `npm start` runs it, in a process of its own that can be killed; optionally as another user. */
export async function startServer(
  dataDir: string,
  env: Record<string, string> = {},
  identity?: { uid: number; gid: number },
): Promise<ServerProcess> {
  const child = spawn(process.execPath, ["apps/studio/main.ts"], {
    env: { PATH: process.env.PATH, HOME: dataDir, ...TEST_ENV, CDS_DATA_DIR: dataDir, ...env },
    stdio: ["ignore", "pipe", "inherit"],
    ...identity,
  });
  for await (const line of createInterface({ input: child.stdout })) {
    const url = /CyberDevStudio\s+(http:\S+)/.exec(line)?.[1];
    if (url !== undefined) {
      child.stdout.resume();
      return { child, url };
    }
  }
  throw new Error(`the server ended with ${child.exitCode} before it printed its address`);
}

/** Send a signal and wait for the end; answers the exit code, null when the signal killed it. */
export async function stopServer(server: ServerProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (server.child.exitCode === null && server.child.signalCode === null) {
    const exited = once(server.child, "exit");
    server.child.kill(signal);
    await exited;
  }
  return server.child.exitCode;
}
