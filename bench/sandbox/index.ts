import { benchFiles } from "./files.ts";
import { benchMicro } from "./micro.ts";
import { benchRun } from "./run.ts";
import { benchWasm } from "./wasm.ts";

/** Every engine beside what somebody would do without it. */
export async function bench(): Promise<void> {
  for (const each of [benchRun, benchFiles, benchWasm, benchMicro]) {
    await each();
    console.log();
  }
}
