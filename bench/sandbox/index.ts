import { benchFiles } from "./files.ts";
import { benchRun } from "./run.ts";

/** Every engine beside what somebody would do without it. */
export async function bench(): Promise<void> {
  await benchRun();
  console.log();
  await benchFiles();
}
