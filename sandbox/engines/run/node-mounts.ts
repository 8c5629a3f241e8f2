import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { SandboxMount, SandboxSpec } from "../../types.ts";
import { DEFAULT_ENV } from "./bwrap-args.ts";

const HOME = "/opt/node";
const BIN = `${HOME}/bin`;
/** npm inside; the two scripts in `node-tools` name it as well. */
const NPM = `${HOME}/lib/node_modules/npm`;

const readOnly = (source: string, target: string): SandboxMount => ({ source, target, mode: "ro" });

/** This server's own Node, and npm where it was installed with it. `execPath`: of the Node to show. */
export function nodeMounts(execPath: string = process.execPath): SandboxMount[] {
  const mounts = [readOnly(execPath, `${BIN}/node`)];
  const npm = join(dirname(execPath), "../lib/node_modules/npm");
  if (!existsSync(npm)) return mounts;
  const tools = ["npm", "npx"].map((name) =>
    readOnly(fileURLToPath(new URL(`./node-tools/${name}`, import.meta.url)), `${BIN}/${name}`),
  );
  return [...mounts, readOnly(npm, NPM), ...tools];
}

/** The same sandbox, with this server's Node first on its PATH: the machine may have none, or another. */
export function withNode<Spec extends Pick<SandboxSpec, "env" | "mounts">>(
  spec: Spec,
  execPath?: string,
): Spec {
  const path = `${BIN}:${spec.env.PATH ?? DEFAULT_ENV.PATH}`;
  return { ...spec, env: { ...spec.env, PATH: path }, mounts: [...spec.mounts, ...nodeMounts(execPath)] };
}
