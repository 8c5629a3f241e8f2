import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";

/** Where `npm run micro` (scripts/micro-image.sh) puts what it builds. */
const BUILT = fileURLToPath(new URL("../../../.runtime/micro", import.meta.url));

/** What every virtual machine boots. All files are shared between machines and never written. */
export interface MicroImage {
  /** ELF kernel with a PVH entry, for QEMU's `-kernel`. */
  kernel: string;
  initrd: string;
  /** Squashfs with Node, Python and a few programs. It has to be the machine's first virtio disk (`/dev/vda`). */
  rootfs: string;
  /** Changes with the content of any of the three. */
  version: string;
}

/**
 * The kernel's command line. A panic ends the machine at once (QEMU with `-no-reboot`): the agent is process 1, so
 * its end is a panic as well. The machine needs, besides the disk, a `virtio-serial-pci` with a `virtserialport`
 * named `cds.agent`; it uses nothing else, and writes no console. `mitigations=off`: one tenant per machine, nothing
 * to hide from itself. `cryptomgr.notests` spares an emulated boot 0.4 s; other switches that were tried spare nothing.
 */
export const KERNEL_APPEND = "quiet loglevel=0 panic=-1 reboot=t mitigations=off cryptomgr.notests";

const Output = z.object({ file: z.string().regex(/^[a-z]+-[0-9a-f]{16}(\.[a-z]+)?$/), bytes: z.number() });
const Manifest = z.object({
  format: z.literal(1),
  version: z.string().regex(/^[0-9a-f]{16}$/),
  kernel: Output,
  initrd: Output,
  rootfs: Output,
});

/** The images built last into `dir`; undefined when there are none, or not all of them: see `whyNoImage`. */
export function findImage(dir: string = BUILT): MicroImage | undefined {
  const found = look(dir);
  return typeof found === "string" ? undefined : found;
}

/** Why `findImage` finds nothing, for a person to read; undefined when it does. */
export function whyNoImage(dir: string = BUILT): string | undefined {
  const found = look(dir);
  return typeof found === "string" ? found : undefined;
}

function look(dir: string): MicroImage | string {
  let text: string;
  try {
    text = readFileSync(join(dir, "manifest.json"), "utf8");
  } catch {
    return "The images of virtual machines have not been built.";
  }
  try {
    const { kernel, initrd, rootfs, version } = Manifest.parse(JSON.parse(text));
    const path = ({ file, bytes }: z.infer<typeof Output>) => {
      if (statSync(join(dir, file)).size !== bytes) throw new Error("another size");
      return join(dir, file);
    };
    return { kernel: path(kernel), initrd: path(initrd), rootfs: path(rootfs), version };
  } catch {
    return "The images of virtual machines are incomplete, or made by another version.";
  }
}
