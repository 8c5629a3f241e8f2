import { InvalidModuleError, tooMany, unsupported } from "./invalid-module.ts";
import { MODULE_LIMITS } from "./limits.ts";
import { TYPE } from "./opcodes.ts";
import { Reader } from "./reader.ts";

export interface FunctionType {
  params: number[];
  results: number[];
}

type ExportKind = "function" | "table" | "memory" | "global";

interface ShapeImport {
  module: string;
  name: string;
  type: FunctionType;
}

interface ShapeExport {
  name: string;
  kind: ExportKind;
  index: number;
}

interface MemoryShape {
  minPages: number;
  /** Null when the module sets itself none. */
  maxPages: number | null;
}

interface TableShape {
  /** Type of the elements, one byte. */
  element: number;
  min: number;
  max: number | null;
}

/** What the sections before the code say: enough to rewrite the code without guessing. */
export interface Shape {
  types: FunctionType[];
  imports: ShapeImport[];
  /** Type of every function of the module's own, in order. */
  functions: FunctionType[];
  tables: TableShape[];
  memory: MemoryShape | null;
  globals: number;
  exports: ShapeExport[];
  start: number | null;
  /** Sections to be copied or rewritten, by id. */
  sections: Map<number, Reader>;
}

export const SECTION = {
  custom: 0,
  type: 1,
  import: 2,
  function: 3,
  table: 4,
  memory: 5,
  global: 6,
  export: 7,
  start: 8,
  element: 9,
  code: 10,
  data: 11,
  dataCount: 12,
  tag: 13,
} as const;

/** The order sections must have, besides custom ones. */
const ORDER: readonly number[] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 10, 11];
const KINDS: readonly ExportKind[] = ["function", "table", "memory", "global"];
const HEADER_BYTES = 8;
const MAGIC = [0x00, 0x61, 0x73, 0x6d];

export function valueType(reader: Reader): number {
  const type = reader.u8();
  if (type >= TYPE.v128 && type <= TYPE.i32) return type;
  if (type === TYPE.funcref || type === TYPE.externref) return type;
  if (type === 0x69 || type === 0x74) throw unsupported("exception handling");
  if (type === 0x63 || type === 0x64) throw unsupported("typed function references");
  if (type >= 0x65 && type <= 0x73) throw unsupported("garbage collection");
  throw reader.broken(`names a type ${type} that there is not`);
}

function checkHeader(bytes: Uint8Array): void {
  if (bytes.length > MODULE_LIMITS.moduleBytes)
    throw tooMany("bytes", bytes.length, MODULE_LIMITS.moduleBytes);
  if (bytes.length < HEADER_BYTES || MAGIC.some((byte, index) => bytes[index] !== byte)) {
    throw new InvalidModuleError("This is no WebAssembly module: it does not begin with \\0asm.");
  }
  const [version, , layer] = [...bytes.subarray(4, HEADER_BYTES)];
  if (layer === 1) throw unsupported("the component model");
  if (version !== 1) throw new InvalidModuleError(`The module is of version ${version}; 1 is supported.`);
}

function readSections(bytes: Uint8Array): Map<number, Reader> {
  const reader = new Reader(bytes, HEADER_BYTES);
  const sections = new Map<number, Reader>();
  let place = -1;
  while (!reader.done) {
    const id = reader.u8();
    const section = reader.part(reader.u32());
    if (id === SECTION.custom) continue;
    if (id === SECTION.tag) throw unsupported("exception handling");
    if (id === 14) throw unsupported("string references");
    const next = ORDER.indexOf(id);
    if (next <= place) throw reader.broken(`has section ${id} twice, out of order, or where there is none`);
    place = next;
    sections.set(id, section);
  }
  return sections;
}

function valueTypes(reader: Reader, what: string, limit: number): number[] {
  const count = reader.count(what, limit);
  const types: number[] = [];
  for (let index = 0; index < count; index += 1) types.push(valueType(reader));
  return types;
}

function readType(reader: Reader): FunctionType {
  const form = reader.u8();
  if ([0x4d, 0x4e, 0x4f, 0x50, 0x5e, 0x5f].includes(form)) throw unsupported("garbage collection");
  if (form === 0x5d) throw unsupported("stack switching");
  if (form !== 0x60) throw reader.broken(`has a type of form ${form}`);
  const params = valueTypes(reader, "parameters of one function", MODULE_LIMITS.params);
  return { params, results: valueTypes(reader, "results of one function", MODULE_LIMITS.results) };
}

function limits(reader: Reader): { min: number; max: number | null } {
  const flags = reader.u8();
  if ((flags & 2) !== 0) throw unsupported("threads and shared memory");
  if ((flags & 4) !== 0) throw unsupported("64-bit memory");
  if ((flags & 8) !== 0) throw unsupported("custom page sizes");
  if (flags > 1) throw reader.broken("has limits of an unknown kind");
  const min = reader.u32();
  return { min, max: flags === 1 ? reader.u32() : null };
}

function typeAt(shape: Shape, reader: Reader): FunctionType {
  const type = shape.types[reader.u32()];
  if (type === undefined) throw reader.broken("names a type that there is not");
  return type;
}

function readImport(shape: Shape, reader: Reader): ShapeImport {
  const module = reader.name();
  const name = reader.name();
  const kind = reader.u8();
  if (kind === 4) throw unsupported("exception handling");
  if (kind !== 0) {
    const what = KINDS[kind] ?? "something unknown";
    throw new InvalidModuleError(
      `The module imports the ${what} ${module}.${name}; only functions are offered.`,
    );
  }
  return { module, name, type: typeAt(shape, reader) };
}

function readTable(reader: Reader): TableShape {
  const element = reader.u8();
  if (element === 0x40 || element === 0x63 || element === 0x64) {
    throw unsupported("typed function references");
  }
  reader.at -= 1;
  const type = valueType(reader);
  return { element: type, ...limits(reader) };
}

function readMemory(reader: Reader): MemoryShape {
  const { min, max } = limits(reader);
  if (min > MODULE_LIMITS.memoryPages)
    throw tooMany("pages of memory at the start", min, MODULE_LIMITS.memoryPages);
  return { minPages: min, maxPages: max };
}

function readExport(reader: Reader): ShapeExport {
  const name = reader.name();
  const kind = KINDS[reader.u8()];
  if (kind === undefined) throw reader.broken("exports something of an unknown kind");
  return { name, kind, index: reader.u32() };
}

function list<T>(shape: Shape, id: number, what: string, limit: number, read: (reader: Reader) => T): T[] {
  const section = shape.sections.get(id);
  if (section === undefined) return [];
  const reader = section.part(section.end - section.at);
  section.at = reader.at;
  const count = reader.count(what, limit);
  const items: T[] = [];
  for (let index = 0; index < count; index += 1) items.push(read(reader));
  reader.finish(what);
  return items;
}

/** The rewritten module has globals that the original has not: nothing of the original may name one of them. */
function checkExports(shape: Shape): void {
  const counts: Record<ExportKind, number> = {
    function: shape.imports.length + shape.functions.length,
    table: shape.tables.length,
    memory: shape.memory === null ? 0 : 1,
    global: shape.globals,
  };
  for (const { name, kind, index } of shape.exports) {
    if (index >= counts[kind]) {
      throw new InvalidModuleError(
        `The module exports ${kind} ${index} as ${JSON.stringify(name)}; it has ${counts[kind]}.`,
      );
    }
  }
}

function readCounts(shape: Shape): void {
  const memories = list(shape, SECTION.memory, "memories", 1000, readMemory);
  if (memories.length > 1) throw unsupported("multiple memories");
  shape.memory = memories[0] ?? null;
  const globals = shape.sections.get(SECTION.global);
  if (globals !== undefined)
    shape.globals = new Reader(globals.bytes, globals.at, globals.end).count(
      "globals",
      MODULE_LIMITS.globals,
    );
  const start = shape.sections.get(SECTION.start);
  if (start === undefined) return;
  const reader = new Reader(start.bytes, start.at, start.end);
  shape.start = reader.u32();
  reader.finish("start section");
  const type = functionType(shape, shape.start);
  if (type === undefined || type.params.length + type.results.length > 0) {
    throw reader.broken("starts with a function that there is not, or that takes or gives values");
  }
}

/** Type of a function by its index, imported ones first. */
export function functionType(shape: Shape, index: number): FunctionType | undefined {
  return shape.imports[index]?.type ?? shape.functions[index - shape.imports.length];
}

/** Read everything but code, data and elements. Throws InvalidModuleError. */
export function readShape(bytes: Uint8Array): Shape {
  checkHeader(bytes);
  const shape: Shape = {
    types: [],
    imports: [],
    functions: [],
    tables: [],
    memory: null,
    globals: 0,
    exports: [],
    start: null,
    sections: readSections(bytes),
  };
  shape.types = list(shape, SECTION.type, "types", MODULE_LIMITS.types, readType);
  shape.imports = list(shape, SECTION.import, "imports", MODULE_LIMITS.imports, (reader) =>
    readImport(shape, reader),
  );
  shape.functions = list(shape, SECTION.function, "functions", MODULE_LIMITS.functions, (reader) =>
    typeAt(shape, reader),
  );
  shape.tables = list(shape, SECTION.table, "tables", MODULE_LIMITS.tables, readTable);
  shape.exports = list(shape, SECTION.export, "exports", MODULE_LIMITS.exports, readExport);
  readCounts(shape);
  checkExports(shape);
  if (shape.functions.length > 0 && !shape.sections.has(SECTION.code)) {
    throw new InvalidModuleError(
      `The module is broken: it has ${shape.functions.length} functions and no code.`,
    );
  }
  const elements = shape.tables.reduce((sum, { min }) => sum + min, 0);
  if (elements > MODULE_LIMITS.tableElements)
    throw tooMany("table elements", elements, MODULE_LIMITS.tableElements);
  return shape;
}
