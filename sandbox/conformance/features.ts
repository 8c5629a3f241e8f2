import type { Availability, Engine, EngineName, Instance } from "../types.ts";

/**
 * What is asked of every engine. `engines.test.ts` beside this loops over engines and features, and writes
 * the parity table of docs/sandbox.md from what it found.
 */
export const FEATURES = {
  work: "does its work and gives back exactly what came out, umlauts and bytes alike",
  failure: "what fails inside is told as a result or a typed error, and the next thing works",
  input: "refuses bad input as InvalidParams with a hint",
  limits: "refuses limits that are none (0, negative, NaN)",
  memory: "holds the memory limit",
  time: "ends what runs too long",
  output: "bounds what comes out",
  processes: "bounds processes and threads",
  disk: "bounds what is written",
  network: "has no network unless allowed",
  host: "sees no file of the host that it was not given",
  environment: "sees nothing of the server's environment",
  tenants: "two instances see nothing of each other",
  cancel: "can be ended at any moment, at once and completely",
  list: "lists what is open, and only that",
  leftovers: "leaves nothing on the machine after close",
  counted: "counts every operation, and makes a span of it",
  closed: "refuses to start after close",
} as const;

export type Feature = keyof typeof FEATURES;

/** An engine made ready for the suite, in directories of its own. */
export interface Fixture extends AsyncDisposable {
  readonly engine: Engine<never, Instance>;
  readonly availability: Availability;
  /** How each feature is shown: it throws when the engine lacks it. A text says why the engine has no need of it. */
  readonly scenarios: { readonly [F in Feature]: (() => Promise<void>) | string };
}

/** One per engine, in `<name>.ts` beside this. */
export interface FixtureMaker {
  readonly name: EngineName;
  open(): Promise<Fixture>;
}
