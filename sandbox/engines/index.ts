/** The engines, one folder each: adding one = a folder, a fixture in `../conformance/`, a line in each list here. */
import { join } from "node:path";
import type { Sandboxes } from "../sandboxes.ts";
import type { Engine, EngineName, Instance, SandboxLog } from "../types.ts";
import { FsEngine } from "./fs/engine.ts";
import { MicroEngine } from "./micro/engine.ts";
import type { MicroSettings } from "./micro/settings.ts";
import type { RunEngine } from "./run/engine.ts";
import { WasmEngine } from "./wasm/engine.ts";

export interface Engines extends AsyncDisposable {
  readonly fs: FsEngine;
  readonly run: RunEngine;
  readonly wasm: WasmEngine;
  readonly micro: MicroEngine;
  /** In this order wherever they are listed. */
  all(): readonly Engine<never, Instance>[];
  /** End all but the run engine, which is the sandboxes' own. */
  close(): Promise<void>;
}

export interface EnginesOptions {
  readonly sandboxes: Sandboxes;
  readonly dataDir: string;
  readonly log: SandboxLog;
  /** What differs from the micro engine's defaults. */
  readonly micro?: Partial<MicroSettings>;
  /** Directory of the virtual machines' images, where it is not the usual one. */
  readonly imageDir?: string | undefined;
}

/** Starts nothing but what `micro` wants kept ready. */
export async function openEngines(options: EnginesOptions): Promise<Engines> {
  const { sandboxes, dataDir, log, micro, imageDir } = options;
  const engines = {
    fs: new FsEngine(),
    run: sandboxes.run,
    wasm: await WasmEngine.open({ host: sandboxes, log }),
    micro: await MicroEngine.open({
      host: sandboxes,
      dir: join(dataDir, "micro"),
      log,
      ...(micro === undefined ? {} : { settings: micro }),
      ...(imageDir === undefined ? {} : { imageDir }),
    }),
  } satisfies Record<EngineName, Engine<never, Instance>>;
  const close = async () => {
    const { run: _, ...own } = engines;
    await Promise.all(Object.values(own).map((engine) => engine.close()));
  };
  return {
    ...engines,
    all: () => [engines.fs, engines.run, engines.wasm, engines.micro],
    close,
    [Symbol.asyncDispose]: close,
  };
}
