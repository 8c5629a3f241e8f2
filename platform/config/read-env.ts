import { resolve } from "node:path";

/** The only place that reads the process environment: strings in, one typed value out, or a clear error. */
export class ConfigError extends Error {
  constructor(name: string, message: string) {
    super(`${name}: ${message}`);
    this.name = "ConfigError";
  }
}

export type Env = Readonly<Record<string, string | undefined>>;

export function text(env: Env, name: string): string | undefined;
export function text(env: Env, name: string, fallback: string): string;
export function text(env: Env, name: string, fallback?: string): string | undefined {
  const value = env[name]?.trim();
  return value === undefined || value === "" ? fallback : value;
}

/** A finite number within [min, max]. */
export function number(env: Env, name: string, fallback: number, min: number, max: number): number {
  const raw = text(env, name);
  if (raw === undefined) return fallback;
  const value = Number(raw);
  if (!Number.isFinite(value) || value < min || value > max) {
    throw new ConfigError(name, `"${raw}" is not a number from ${min} to ${max}`);
  }
  return value;
}

/** A whole number within [min, max]. */
export function integer(env: Env, name: string, fallback: number, min: number, max: number): number {
  const value = number(env, name, fallback, min, max);
  if (!Number.isInteger(value)) throw new ConfigError(name, `"${value}" is not a whole number`);
  return value;
}

export function flag(env: Env, name: string, fallback: boolean): boolean {
  const raw = text(env, name)?.toLowerCase();
  if (raw === undefined) return fallback;
  if (["1", "true", "yes", "on"].includes(raw)) return true;
  if (["0", "false", "no", "off"].includes(raw)) return false;
  throw new ConfigError(name, `"${raw}" is neither true nor false`);
}

export function oneOf<const T extends string>(env: Env, name: string, fallback: T, values: readonly T[]): T {
  const raw = text(env, name);
  if (raw === undefined) return fallback;
  const found = values.find((value) => value === raw);
  if (found === undefined) throw new ConfigError(name, `"${raw}" is none of ${values.join(", ")}`);
  return found;
}

/** Comma-separated, blanks trimmed. */
export function list(env: Env, name: string, fallback: readonly string[] = []): string[] {
  return (text(env, name) ?? fallback.join(","))
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}

/** An http(s) address without the slash at its end. */
export function url(env: Env, name: string): string | undefined {
  const raw = text(env, name);
  if (raw === undefined) return undefined;
  if (!/^https?:$/.test(URL.parse(raw)?.protocol ?? "")) {
    throw new ConfigError(name, `"${raw}" is not an http(s) address`);
  }
  return raw.replace(/\/+$/, "");
}

/** The same, without user name, query and fragment: a secret in an address ends up in logs and answers. */
export function bareUrl(env: Env, name: string): string | undefined {
  const raw = url(env, name);
  if (raw === undefined) return undefined;
  const { username, password, search, hash } = new URL(raw);
  if (`${username}${password}${search}${hash}` !== "") {
    throw new ConfigError(name, "the address must hold no user name, query or fragment");
  }
  return raw;
}

/** An absolute path; a relative one counts from `cwd`. */
export function path(env: Env, name: string, cwd: string): string | undefined {
  const raw = text(env, name);
  return raw === undefined ? undefined : resolve(cwd, raw);
}
