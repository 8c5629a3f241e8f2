import { buffer } from "node:stream/consumers";
import yazl from "yazl";

/** A zip by the library, from contents by name. */
export function zipOf(files: Record<string, string | Buffer>, mode = 0o100644): Promise<Buffer> {
  const zip = new yazl.ZipFile();
  for (const [name, content] of Object.entries(files)) zip.addBuffer(Buffer.from(content), name, { mode });
  zip.end();
  return buffer(zip.outputStream);
}

/** Replace one name by another of the same length, in both places a zip has it. */
export function renamed(zip: Buffer, from: string, to: string): Buffer {
  const [old, next] = [Buffer.from(from), Buffer.from(to)];
  const changed = Buffer.from(zip);
  for (let at = changed.indexOf(old); at !== -1; at = changed.indexOf(old, at + 1)) next.copy(changed, at);
  return changed;
}

/** Overwrite a 16-bit field of every central directory entry. */
export function patched(zip: Buffer, offset: number, value: number): Buffer {
  const changed = Buffer.from(zip);
  const signature = Buffer.from([0x50, 0x4b, 1, 2]);
  for (let at = changed.indexOf(signature); at !== -1; at = changed.indexOf(signature, at + 1)) {
    changed.writeUInt16LE(value, at + offset);
  }
  return changed;
}

export function directoryZip(name: string): Promise<Buffer> {
  const zip = new yazl.ZipFile();
  zip.addEmptyDirectory(name);
  zip.end();
  return buffer(zip.outputStream);
}

export function manyDirectories(count: number): Promise<Buffer> {
  const zip = new yazl.ZipFile();
  for (let i = 0; i < count; i++) zip.addEmptyDirectory(`d${i}/`);
  zip.end();
  return buffer(zip.outputStream);
}

/** Destroy the compressed bytes, not the headers. */
export function broken(zip: Buffer): Buffer {
  const changed = Buffer.from(zip);
  changed.fill(0xff, 33, 45);
  return changed;
}
