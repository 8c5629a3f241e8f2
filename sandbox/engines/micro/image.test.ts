import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { findImage, whyNoImage } from "./image.ts";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "cds-image-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const NAMES = {
  kernel: "vmlinux-0123456789abcdef",
  initrd: "initrd-0123456789abcdef.cpio",
  rootfs: "rootfs-0123456789abcdef.squashfs",
};
const output = (file: string, bytes = 3) => ({ file, bytes, sha256: "" });
const manifest = (more: object = {}) => ({
  format: 1,
  version: "fedcba9876543210",
  kernel: output(NAMES.kernel),
  initrd: output(NAMES.initrd),
  rootfs: output(NAMES.rootfs),
  ...more,
});

async function lay(content: unknown): Promise<void> {
  for (const name of Object.values(NAMES)) await writeFile(join(dir, name), "abc");
  await writeFile(join(dir, "manifest.json"), JSON.stringify(content));
}

it("finds what was built last", async () => {
  await lay(manifest());
  expect(whyNoImage(dir)).toBeUndefined();
  expect(findImage(dir)).toEqual({
    kernel: join(dir, NAMES.kernel),
    initrd: join(dir, NAMES.initrd),
    rootfs: join(dir, NAMES.rootfs),
    version: "fedcba9876543210",
  });
});

it("says that nothing was built", () => {
  expect(findImage(dir)).toBeUndefined();
  expect(whyNoImage(dir)).toContain("not been built");
});

it.each([
  ["of another format", manifest({ format: 2 })],
  ["with a file of another size", manifest({ kernel: output(NAMES.kernel, 4) })],
  ["with a file that is missing", manifest({ kernel: output("vmlinux-0000000000000000") })],
  ["that leads elsewhere", manifest({ kernel: output("../../etc/hosts") })],
  ["that is no object", "x"],
])("takes no manifest %s", async (_name, content) => {
  await lay(content);
  expect(findImage(dir)).toBeUndefined();
  expect(whyNoImage(dir)).toContain("incomplete");
});
