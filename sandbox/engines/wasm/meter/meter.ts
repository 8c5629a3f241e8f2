import { Emitter, type HiddenGlobals } from "./emit.ts";
import { tooMany } from "./invalid-module.ts";
import { MODULE_LIMITS } from "./limits.ts";
import { Reader } from "./reader.ts";
import { Scan } from "./scan.ts";
import { type FunctionType, readShape, SECTION, type Shape } from "./shape.ts";
import { Writer } from "./writer.ts";

/** Names of exports that only the rewritten module has. */
interface HiddenNames {
  fuel: string;
  stack: string;
  pages: string;
  /** The start function, which the original would have run by itself; null without one. */
  start: string | null;
}

export interface MeteredModule {
  bytes: Uint8Array<ArrayBuffer>;
  shape: Shape;
  hidden: HiddenNames;
}

const HEADER = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
const I64_MUTABLE = [0x7e, 1];
const KIND_FUNCTION = 0;
const KIND_GLOBAL = 3;

/** None of the module's own exports begins like ours, whatever they are called. */
function hiddenNames(shape: Shape): HiddenNames {
  const names = new Set(shape.exports.map(({ name }) => name));
  let prefix = "\0metered.";
  const parts = ["fuel", "stack", "pages", "start"];
  while (parts.some((part) => names.has(prefix + part))) prefix = `\0${prefix}`;
  const start = shape.start === null ? null : `${prefix}start`;
  return { fuel: `${prefix}fuel`, stack: `${prefix}stack`, pages: `${prefix}pages`, start };
}

function writeTables(out: Writer, shape: Shape): void {
  const room = Math.floor(MODULE_LIMITS.tableElements / Math.max(1, shape.tables.length));
  out.u32(shape.tables.length);
  for (const { element, min, max } of shape.tables) {
    out.raw([element, 1]);
    out.u32(min);
    out.u32(Math.max(min, Math.min(max ?? room, room)));
  }
}

function writeMemory(out: Writer, { memory }: Shape): void {
  if (memory === null) {
    out.u8(0);
    return;
  }
  const { minPages, maxPages } = memory;
  out.raw([1, 1]);
  out.u32(minPages);
  // A maximum below the minimum is left for the compiler to refuse.
  out.u32(Math.min(maxPages ?? MODULE_LIMITS.memoryPages, MODULE_LIMITS.memoryPages));
}

function writeGlobals(out: Writer, shape: Shape): void {
  const section = shape.sections.get(SECTION.global);
  out.u32(shape.globals + 3);
  if (section !== undefined) {
    const reader = new Reader(section.bytes, section.at, section.end);
    reader.u32();
    out.copy(reader.rest());
  }
  for (let index = 0; index < 3; index += 1) {
    out.raw([...I64_MUTABLE, 0x42]);
    // Nothing can run before the host has set them.
    out.signed(-1);
    out.u8(0x0b);
  }
}

function writeExports(out: Writer, shape: Shape, hidden: HiddenNames, globals: HiddenGlobals): void {
  const section = shape.sections.get(SECTION.export);
  out.u32(shape.exports.length + (hidden.start === null ? 3 : 4));
  if (section !== undefined) {
    const reader = new Reader(section.bytes, section.at, section.end);
    reader.u32();
    out.copy(reader.rest());
  }
  for (const part of ["fuel", "stack", "pages"] as const) {
    out.name(hidden[part]);
    out.u8(KIND_GLOBAL);
    out.u32(globals[part]);
  }
  if (hidden.start === null) return;
  out.name(hidden.start);
  out.u8(KIND_FUNCTION);
  out.u32(shape.start ?? 0);
}

function writeCode(out: Writer, shape: Shape, globals: HiddenGlobals): void {
  const section = shape.sections.get(SECTION.code);
  const reader =
    section === undefined
      ? new Reader(new Uint8Array([0]))
      : new Reader(section.bytes, section.at, section.end);
  const count = reader.u32();
  if (count !== shape.functions.length)
    throw reader.broken(`has ${shape.functions.length} functions and code for ${count}`);
  out.u32(count);
  const scan = new Scan(shape);
  const body = new Writer();
  const emitter = new Emitter(body, globals, scan);
  for (let index = 0; index < count; index += 1) {
    const size = reader.u32();
    if (size > MODULE_LIMITS.functionBytes)
      throw tooMany("bytes in one function", size, MODULE_LIMITS.functionBytes);
    const part = reader.part(size);
    const type = shape.functions[index] as FunctionType;
    const { at } = part;
    scan.read(part, type);
    part.at = at;
    body.clear();
    emitter.write(part);
    const written = body.view();
    out.u32(written.length);
    out.copy(written);
  }
  reader.finish("code section");
}

/** Sections that have to be there although the original may have none. */
const WRITTEN: readonly number[] = [SECTION.global, SECTION.export];
const ORDER: readonly number[] = [1, 2, 3, 4, 5, 6, 7, 9, 12, 10, 11];

/**
 * Rewrite a module so that what it uses is counted and held within limits that it can neither see nor change: fuel
 * per stretch of code, the depth of calls, the growth of memory. Two runs of the result stop at the same
 * instruction, whatever V8 makes of it. What the module does is otherwise the same. Linear in its size. Custom sections
 * (names for debuggers) are left out; the start function is left for the host to call.
 * Throws InvalidModuleError; what is wrong in other ways is left for the compiler to refuse.
 */
export function meterModule(bytes: Uint8Array): MeteredModule {
  const shape = readShape(bytes);
  const hidden = hiddenNames(shape);
  const { globals: first } = shape;
  const globals = { fuel: first, stack: first + 1, pages: first + 2 };
  const out = new Writer(bytes.length + (bytes.length >> 1) + 4096);
  const section = new Writer();
  out.raw(HEADER);
  for (const id of ORDER) {
    const original = shape.sections.get(id);
    if (original === undefined && !WRITTEN.includes(id)) continue;
    section.clear();
    if (id === SECTION.table) writeTables(section, shape);
    else if (id === SECTION.memory) writeMemory(section, shape);
    else if (id === SECTION.global) writeGlobals(section, shape);
    else if (id === SECTION.export) writeExports(section, shape, hidden, globals);
    else if (id === SECTION.code) writeCode(section, shape, globals);
    else if (original !== undefined) section.copy(original.bytes, original.at, original.end);
    out.u8(id);
    out.u32(section.view().length);
    out.copy(section.view());
  }
  return { bytes: out.view().slice(), shape, hidden };
}
