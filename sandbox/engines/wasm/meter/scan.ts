import {
  BULK_BYTES,
  BULK_ELEMENTS,
  CALL_COST,
  COST,
  FRAME_BASE,
  GROW_COST,
  INDIRECT_CALL_COST,
  LEAF_COST,
  LOCALS_PER_FUEL,
  MERGE_COST,
  SLOT_BYTES,
  VECTOR_SLOT_BYTES,
} from "./costs.ts";
import { EVENT } from "./events.ts";
import { tooMany, unsupported } from "./invalid-module.ts";
import { MODULE_LIMITS } from "./limits.ts";
import {
  BULK_STACK_CHANGE,
  FOLLOWING,
  FOLLOWS,
  OP,
  proposalOf,
  STACK_CHANGE,
  simdStackChange,
  TYPE,
} from "./opcodes.ts";
import type { Reader } from "./reader.ts";
import { type FunctionType, functionType, type Shape, valueType } from "./shape.ts";

interface Frame {
  opcode: number;
  type: FunctionType;
  /** Operands below it. */
  height: number;
  /** The segment it was opened in. */
  segment: number;
  /** Whether it was opened where the code can get. */
  alive: boolean;
}

const NOTHING: FunctionType = { params: [], results: [] };

/** One function's body, read once: what it costs where, and what has to be watched in it. One object for all bodies. */
export class Scan {
  readonly eventAt: number[] = [];
  readonly eventKind: number[] = [];
  readonly eventDetail: number[] = [];
  /** By segment: fuel, whether to look if there is any left, and the segment that always runs just before. */
  readonly cost: number[] = [];
  readonly check: boolean[] = [];
  readonly #before: number[] = [];
  /** Index of the first local that the original has not. */
  locals = 0;
  /** Whether it calls anything. */
  calls = false;
  /** Estimated size of its frame on the stack, bytes. */
  frameBytes = 0;
  /** Whether it loops, or works on as much memory as an operand says. */
  #repeats = false;
  /** Where its instructions begin. */
  codeAt = 0;
  readonly #shape: Shape;
  readonly #frames: Frame[] = [];
  #segment = 0;
  #alive = true;
  #height = 0;
  #highest = 0;
  #vectors = false;

  constructor(shape: Shape) {
    this.#shape = shape;
  }

  /** Read a body, its size left out, to its end. Throws InvalidModuleError. */
  read(reader: Reader, type: FunctionType): void {
    for (const list of [
      this.eventAt,
      this.eventKind,
      this.eventDetail,
      this.cost,
      this.check,
      this.#before,
    ]) {
      list.length = 0;
    }
    this.#frames.length = 0;
    this.calls = false;
    this.#repeats = false;
    this.#height = 0;
    this.#highest = 0;
    this.#vectors = false;
    this.#alive = true;
    this.#readLocals(reader, type);
    this.codeAt = reader.at;
    this.#open(reader.at, -1, false);
    this.#addCost(1 + Math.floor((this.locals - type.params.length) / LOCALS_PER_FUEL));
    this.#push(OP.block, { params: [], results: type.results });
    while (this.#frames.length > 0) this.#instruction(reader);
    reader.finish("function's code");
    const slot = this.#vectors ? VECTOR_SLOT_BYTES : SLOT_BYTES;
    this.frameBytes = FRAME_BASE + slot * (this.locals + this.#highest);
    this.check[0] = this.calls;
    this.#merge();
    if (!this.calls && !this.#repeats) this.#leaveOutLeaf();
  }

  #readLocals(reader: Reader, type: FunctionType): void {
    let total = type.params.length;
    this.#vectors = type.params.includes(TYPE.v128);
    const groups = reader.u32();
    for (let group = 0; group < groups; group += 1) {
      total += reader.u32();
      if (total > MODULE_LIMITS.locals)
        throw reader.broken(`has more than ${MODULE_LIMITS.locals} locals in one function`);
      if (valueType(reader) === TYPE.v128) this.#vectors = true;
    }
    this.locals = total;
  }

  #instruction(reader: Reader): void {
    const at = reader.at;
    const opcode = reader.u8();
    this.#addCost(COST[opcode] ?? 1);
    this.#change(STACK_CHANGE[opcode] ?? 0);
    switch (FOLLOWING[opcode]) {
      case FOLLOWS.nothing:
        return;
      case FOLLOWS.local:
        if (reader.u32() >= this.locals) throw reader.broken("names a local that there is not");
        return;
      case FOLLOWS.global:
        if (reader.u32() >= this.#shape.globals) throw reader.broken("names a global that there is not");
        return;
      case FOLLOWS.memory:
        this.#memoryArgument(reader);
        return;
      case FOLLOWS.signed32:
        reader.skipSigned(5);
        return;
      case FOLLOWS.signed64:
        reader.skipSigned(10);
        return;
      case FOLLOWS.float32:
        reader.skip(4);
        return;
      case FOLLOWS.float64:
        reader.skip(8);
        return;
      case FOLLOWS.index:
        reader.u32();
        return;
      case FOLLOWS.zero:
        this.#memoryIndex(reader);
        return;
      case FOLLOWS.other:
        this.#other(reader, opcode, at);
        return;
      default: {
        const proposal = proposalOf(opcode);
        if (proposal !== undefined) throw unsupported(proposal);
        throw reader.broken(`has an instruction 0x${opcode.toString(16)} that there is not`);
      }
    }
  }

  #other(reader: Reader, opcode: number, at: number): void {
    switch (opcode) {
      case OP.unreachable:
      case OP.return:
        this.#die();
        break;
      case OP.block:
        this.#push(opcode, this.#blockType(reader));
        break;
      case OP.loop:
        this.#loop(reader);
        break;
      case OP.if:
        this.#push(opcode, this.#blockType(reader));
        this.#open(reader.at, this.#segment, false);
        break;
      case OP.else:
        this.#else(reader);
        break;
      case OP.end:
        this.#end(reader);
        break;
      case OP.br:
        this.#label(reader);
        this.#die();
        break;
      case OP.brIf:
        this.#label(reader);
        this.#open(reader.at, this.#segment, false);
        break;
      case OP.brTable:
        for (let left = reader.u32(); left >= 0; left -= 1) this.#label(reader);
        this.#die();
        break;
      case OP.selectTyped:
        if (reader.u32() !== 1) throw reader.broken("chooses between none or several values");
        valueType(reader);
        break;
      case OP.memoryGrow:
        this.#memoryIndex(reader);
        this.#addCost(GROW_COST);
        this.#event(EVENT.grow, at);
        this.#event(EVENT.grown, reader.at);
        break;
      case 0xd0:
        if (valueType(reader) < TYPE.externref) throw reader.broken("makes a reference of no such type");
        break;
      case OP.bulk:
        this.#bulk(reader, at);
        break;
      case OP.simd:
        this.#simd(reader);
        break;
      default:
        this.#call(reader, opcode, at);
        break;
    }
  }

  #call(reader: Reader, opcode: number, at: number): void {
    const indirect = opcode === OP.callIndirect || opcode === OP.returnCallIndirect;
    const index = reader.u32();
    if (indirect) reader.u32();
    const type = indirect ? this.#shape.types[index] : functionType(this.#shape, index);
    if (type === undefined) throw reader.broken("calls what there is not");
    this.calls = true;
    this.#addCost(indirect ? INDIRECT_CALL_COST : CALL_COST);
    if (opcode === OP.returnCall || opcode === OP.returnCallIndirect) {
      this.#event(EVENT.leave, at);
      this.#die();
      return;
    }
    this.#change((indirect ? -1 : 0) - type.params.length + type.results.length);
    const host = !indirect && index < this.#shape.imports.length;
    this.#event(host ? EVENT.calledHost : EVENT.called, reader.at);
  }

  #bulk(reader: Reader, at: number): void {
    const number = reader.u32();
    if (number >= 19 && number <= 22) throw unsupported("wide arithmetic");
    if (number > 17) throw reader.broken(`has an instruction 0xfc ${number} that there is not`);
    this.#change(BULK_STACK_CHANGE[number] ?? 0);
    if (number <= 7) return;
    if (number === 8) {
      reader.u32();
      this.#memoryIndex(reader);
    } else if (number === 10) {
      this.#memoryIndex(reader);
      this.#memoryIndex(reader);
    } else if (number === 11) {
      this.#memoryIndex(reader);
    } else {
      reader.u32();
      if (number === 12 || number === 14) reader.u32();
    }
    if (BULK_BYTES.has(number)) this.#event(EVENT.bytes, at);
    if (BULK_ELEMENTS.has(number)) this.#event(EVENT.elements, at);
  }

  #simd(reader: Reader): void {
    const number = reader.u32();
    if (number > 0xff) throw unsupported("relaxed SIMD");
    this.#vectors = true;
    this.#change(simdStackChange(number));
    if (number <= 11 || number === 92 || number === 93) this.#memoryArgument(reader);
    else if (number === 12 || number === 13) reader.skip(16);
    else if (number >= 21 && number <= 34) reader.skip(1);
    else if (number >= 84 && number <= 91) {
      this.#memoryArgument(reader);
      reader.skip(1);
    }
  }

  #memoryArgument(reader: Reader): void {
    // Bit 6 says that the number of a memory follows.
    if ((reader.u32() & 0x40) !== 0) throw unsupported("multiple memories");
    reader.u32();
  }

  #memoryIndex(reader: Reader): void {
    if (reader.u8() !== 0) throw unsupported("multiple memories");
  }

  #blockType(reader: Reader): FunctionType {
    const start = reader.at;
    const type = reader.s33();
    if (type === -64) return NOTHING;
    if (type >= 0) {
      const named = this.#shape.types[type];
      if (named === undefined) throw reader.broken("has a block of a type that there is not");
      return named;
    }
    reader.at = start;
    return { params: [], results: [valueType(reader)] };
  }

  #label(reader: Reader): void {
    if (reader.u32() >= this.#frames.length) throw reader.broken("branches to a block that there is not");
  }

  #loop(reader: Reader): void {
    this.#push(OP.loop, this.#blockType(reader));
    this.#open(reader.at, -1, true);
    // So that going round is never free.
    this.#addCost(1);
    this.#repeats = true;
  }

  #else(reader: Reader): void {
    const frame = this.#frames.at(-1);
    if (frame?.opcode !== OP.if) throw reader.broken("has an else without an if");
    frame.opcode = OP.else;
    this.#height = frame.height + frame.type.params.length;
    this.#alive = frame.alive;
    this.#open(reader.at, frame.segment, false);
  }

  #end(reader: Reader): void {
    const frame = this.#frames.pop();
    if (frame === undefined) throw reader.broken("ends what was not begun");
    const straight = this.#alive && this.#segment === frame.segment;
    this.#height = frame.height;
    this.#alive = frame.alive;
    this.#change(frame.type.results.length);
    if (this.#frames.length > 0 && !straight) this.#open(reader.at, frame.segment, false);
  }

  #push(opcode: number, type: FunctionType): void {
    const { nesting } = MODULE_LIMITS;
    if (this.#frames.length > nesting)
      throw tooMany("blocks inside each other", this.#frames.length, nesting);
    const height = Math.max(0, this.#height - type.params.length);
    this.#frames.push({ opcode, type, height, segment: this.#segment, alive: this.#alive });
  }

  /** A new segment begins here; `before` is the one that must have run for control to come here, -1 where to stand alone. */
  #open(at: number, before: number, check: boolean): void {
    if (!this.#alive) return;
    this.#segment = this.cost.length;
    this.cost.push(0);
    this.check.push(check);
    this.#before.push(before);
    this.eventAt.push(at);
    this.eventKind.push(EVENT.charge);
    this.eventDetail.push(this.#segment);
  }

  #event(kind: number, at: number): void {
    this.#repeats = true;
    this.eventAt.push(at);
    this.eventKind.push(kind);
    this.eventDetail.push(0);
  }

  #addCost(cost: number): void {
    if (this.#alive) this.cost[this.#segment] = (this.cost[this.#segment] ?? 0) + cost;
  }

  #change(by: number): void {
    this.#height = Math.max(0, this.#height + by);
    if (this.#height > this.#highest) this.#highest = this.#height;
  }

  /** What follows cannot be reached. */
  #die(): void {
    this.#alive = false;
  }

  /**
   * Add what small segments cost to the ones before them. No loop lies between the two, so that each runs at most
   * once per charge: fuel may be taken for what is then left out, never the other way round.
   */
  #merge(): void {
    for (let segment = this.cost.length - 1; segment > 0; segment -= 1) {
      const before = this.#before[segment] ?? -1;
      const cost = this.cost[segment] ?? 0;
      if (before < 0 || cost > MERGE_COST) continue;
      this.cost[before] = (this.cost[before] ?? 0) + cost;
      this.cost[segment] = 0;
    }
  }

  #leaveOutLeaf(): void {
    let total = 0;
    for (const cost of this.cost) total += cost;
    if (total <= LEAF_COST) this.cost.fill(0);
  }
}
