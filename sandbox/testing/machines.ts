import { whyNoImage } from "../engines/micro/image.ts";
import { findProgram } from "../host.ts";

/** Why tests that boot a virtual machine are skipped here; undefined when they are not. */
export function whyNoMachines(): string | undefined {
  if (findProgram("qemu-system-x86_64") === undefined) return "(skipped: QEMU is not installed)";
  const why = whyNoImage();
  return why === undefined ? undefined : `(skipped: ${why})`;
}
