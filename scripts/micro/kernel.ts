import { gunzipSync, zstdDecompressSync } from "node:zlib";

/** Offsets of the x86 boot protocol, which Linux keeps stable: Documentation/arch/x86/boot.rst. */
const SETUP_SECTORS = 0x1f1;
const SIGNATURE = 0x202;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const SECTOR = 512;
/** No kernel is larger when unpacked. */
const MAX_KERNEL_BYTES = 256 * 1024 * 1024;
const ELF = "\x7fELF";

/**
 * The ELF image inside a bzImage: QEMU enters it directly (PVH), which spares an emulated guest the unpacking.
 * Undefined for a kernel packed in a way that Node does not know; the bzImage then boots as it is.
 */
export function unpackKernel(image: Buffer): Buffer | undefined {
  if (image.toString("latin1", SIGNATURE, SIGNATURE + 4) !== "HdrS") return undefined;
  const setup = (image.readUInt8(SETUP_SECTORS) + 1) * SECTOR;
  const start = setup + image.readUInt32LE(PAYLOAD_OFFSET);
  const payload = image.subarray(start, start + image.readUInt32LE(PAYLOAD_LENGTH));
  const unpacked = unpack(payload);
  return unpacked?.toString("latin1", 0, ELF.length) === ELF ? unpacked : undefined;
}

function unpack(payload: Buffer): Buffer | undefined {
  const options = { maxOutputLength: MAX_KERNEL_BYTES };
  // The last four bytes are the unpacked size, which no format but gzip knows as its own.
  const body = payload.subarray(0, -4);
  switch (payload.readUInt32LE(0)) {
    case 0x184c2102:
      return unpackLz4(body);
    case 0xfd2fb528:
      return zstdDecompressSync(body, options);
    default:
      return payload.readUInt16LE(0) === 0x8b1f ? gunzipSync(payload, options) : undefined;
  }
}

/** The frame format of `lz4 -l`: a magic number, then blocks of 8 MiB unpacked, each with its packed size. */
function unpackLz4(data: Buffer): Buffer {
  const out = Buffer.allocUnsafe(MAX_KERNEL_BYTES);
  let at = 4;
  let size = 0;
  while (at + 4 <= data.length) {
    const length = data.readUInt32LE(at);
    if (length === 0 || at + 4 + length > data.length) break;
    size = unpackBlock(data.subarray(at + 4, at + 4 + length), out, size);
    at += 4 + length;
  }
  return out.subarray(0, size);
}

/** One LZ4 block: literals and matches in turn, the last being literals. Answers the new end of `out`. */
function unpackBlock(block: Buffer, out: Buffer, start: number): number {
  let at = 0;
  let to = start;
  const count = (nibble: number) => {
    let value = nibble;
    if (nibble === 15) {
      for (;;) {
        const more = block.readUInt8(at++);
        value += more;
        if (more !== 255) break;
      }
    }
    return value;
  };
  while (at < block.length) {
    const token = block.readUInt8(at++);
    const literals = count(token >> 4);
    if (to + literals > out.length) throw new RangeError("the kernel is too large");
    block.copy(out, to, at, at + literals);
    at += literals;
    to += literals;
    if (at >= block.length) break;
    const distance = block.readUInt16LE(at);
    at += 2;
    const length = count(token & 15) + 4;
    if (distance === 0 || distance > to || to + length > out.length) throw new RangeError("not an LZ4 block");
    if (distance >= length) out.copyWithin(to, to - distance, to - distance + length);
    // Source and target overlap: the match repeats what it is just writing.
    else for (let i = 0; i < length; i += 1) out[to + i] = out[to + i - distance] ?? 0;
    to += length;
  }
  return to;
}
