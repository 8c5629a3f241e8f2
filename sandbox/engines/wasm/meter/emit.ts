import { EVENT } from "./events.ts";
import { OP } from "./opcodes.ts";
import type { Reader } from "./reader.ts";
import type { Scan } from "./scan.ts";
import type { Writer } from "./writer.ts";

/** Indexes of the globals that only the rewritten module has; i64 all three. */
export interface HiddenGlobals {
  /** Fuel left; below 0 there was too little. */
  fuel: number;
  /** Stack left, bytes; below 0 there was too little. */
  stack: number;
  /** Pages that memory may have. */
  pages: number;
}

const EMPTY = 0x40;
const I32 = 0x7f;
const I64 = 0x7e;
/** Frames of functions that call nothing are counted only when they are larger. */
const SMALL_FRAME_BYTES = 4096;
const PAGE_FUEL = 1024;
const BYTES_PER_FUEL_LOG2 = 3;

/** Indexes of the locals that are added to a function; -1 for those it has no need of. */
interface HiddenLocals {
  /** Always the same as the global, so that a loop need not read that. */
  fuel: number;
  /** What the global has to be again after a call. */
  stack: number;
  /** i32. */
  operand: number;
}

/** Writes rewritten bodies: the original's bytes, with charges and checks put between. */
export class Emitter {
  readonly #out: Writer;
  readonly #globals: HiddenGlobals;
  #locals: HiddenLocals = { fuel: -1, stack: -1, operand: -1 };
  readonly #scan: Scan;

  constructor(out: Writer, globals: HiddenGlobals, scan: Scan) {
    this.#out = out;
    this.#globals = globals;
    this.#scan = scan;
  }

  /** Write the body that `body` begins and the scan has just read. */
  write(body: Reader): void {
    const scan = this.#scan;
    const { eventAt, eventKind, eventDetail } = scan;
    this.#writeLocals(body);
    if (this.#locals.stack >= 0) this.#enter();
    let at = scan.codeAt;
    for (let index = 0; index < eventAt.length; index += 1) {
      const next = eventAt[index] ?? at;
      const kind = eventKind[index];
      if (kind === EVENT.charge && !this.#charges(eventDetail[index] ?? 0)) continue;
      this.#out.copy(body.bytes, at, next);
      at = next;
      this.#insert(kind, eventDetail[index] ?? 0);
    }
    this.#out.copy(body.bytes, at, body.end);
  }

  #charges(segment: number): boolean {
    return (this.#scan.cost[segment] ?? 0) > 0 || this.#scan.check[segment] === true;
  }

  #writeLocals(body: Reader): void {
    const { eventKind, eventDetail, locals, calls, frameBytes, codeAt } = this.#scan;
    let charges = 0;
    let operand = false;
    for (let index = 0; index < eventKind.length; index += 1) {
      const kind = eventKind[index];
      if (kind === EVENT.charge) charges += this.#charges(eventDetail[index] ?? 0) ? 1 : 0;
      else if (kind === EVENT.bytes || kind === EVENT.elements || kind === EVENT.grow) operand = true;
    }
    let next = locals;
    const fuel = charges > 1 || operand ? next++ : -1;
    const stack = calls || frameBytes > SMALL_FRAME_BYTES ? next++ : -1;
    this.#locals = { fuel, stack, operand: operand ? next : -1 };
    const more = (next > locals ? 1 : 0) + (operand ? 1 : 0);
    const start = body.at;
    const groups = body.u32();
    this.#out.u32(groups + more);
    this.#out.copy(body.bytes, body.at, codeAt);
    body.at = start;
    if (next > locals) {
      this.#out.u32(next - locals);
      this.#out.u8(I64);
    }
    if (operand) this.#out.raw([1, I32]);
  }

  #insert(kind: number | undefined, detail: number): void {
    switch (kind) {
      case EVENT.charge:
        this.#charge(detail);
        break;
      case EVENT.called:
        this.#called(true);
        break;
      case EVENT.calledHost:
        this.#called(false);
        break;
      case EVENT.bytes:
        this.#chargeOperand(BYTES_PER_FUEL_LOG2);
        break;
      case EVENT.elements:
        this.#chargeOperand(0);
        break;
      case EVENT.grow:
        this.#grow();
        break;
      case EVENT.grown:
        this.#out.u8(OP.end);
        break;
      default:
        this.#leave();
        break;
    }
  }

  #op(opcode: number, index: number): void {
    this.#out.u8(opcode);
    this.#out.u32(index);
  }

  #number(value: number): void {
    this.#out.u8(OP.i64Const);
    this.#out.signed(value);
  }

  /** Nothing in the module can catch this: exception handling is refused. */
  #trapIf(condition: number): void {
    this.#out.raw([condition, OP.if, EMPTY, OP.unreachable, OP.end]);
  }

  #enter(): void {
    const { stack } = this.#locals;
    this.#op(OP.globalGet, this.#globals.stack);
    this.#number(this.#scan.frameBytes);
    this.#out.u8(OP.i64Sub);
    this.#op(OP.localTee, stack);
    this.#op(OP.globalSet, this.#globals.stack);
  }

  /** The first charge has nothing to go by but the global, and asks for the stack too, with one branch for both. */
  #charge(segment: number): void {
    const { fuel, stack } = this.#locals;
    const first = segment === 0;
    if (first || fuel < 0) this.#op(OP.globalGet, this.#globals.fuel);
    else this.#op(OP.localGet, fuel);
    this.#number(this.#scan.cost[segment] ?? 0);
    this.#out.u8(OP.i64Sub);
    if (fuel >= 0) this.#op(OP.localTee, fuel);
    this.#op(OP.globalSet, this.#globals.fuel);
    if (this.#scan.check[segment] !== true && !(first && stack >= 0)) return;
    this.#op(fuel >= 0 ? OP.localGet : OP.globalGet, fuel >= 0 ? fuel : this.#globals.fuel);
    if (first && stack >= 0) {
      this.#op(OP.localGet, stack);
      this.#out.u8(OP.i64Or);
    }
    this.#number(0);
    this.#trapIf(OP.i64LtS);
  }

  #called(own: boolean): void {
    const { fuel, stack } = this.#locals;
    if (fuel >= 0) {
      this.#op(OP.globalGet, this.#globals.fuel);
      this.#op(OP.localSet, fuel);
    }
    if (!own) return;
    this.#op(OP.localGet, stack);
    this.#op(OP.globalSet, this.#globals.stack);
  }

  /** A tail call takes this frame's place. */
  #leave(): void {
    this.#op(OP.localGet, this.#locals.stack);
    this.#number(this.#scan.frameBytes);
    this.#out.u8(OP.i64Add);
    this.#op(OP.globalSet, this.#globals.stack);
  }

  #takeOperandFuel(write: () => void): void {
    const { fuel } = this.#locals;
    this.#op(OP.localGet, fuel);
    write();
    this.#out.u8(OP.i64Sub);
    this.#op(OP.localTee, fuel);
    this.#op(OP.globalSet, this.#globals.fuel);
    this.#op(OP.localGet, fuel);
    this.#number(0);
    this.#trapIf(OP.i64LtS);
  }

  #operand(): void {
    this.#op(OP.localGet, this.#locals.operand);
    this.#out.u8(OP.i64ExtendI32U);
  }

  #chargeOperand(shift: number): void {
    this.#op(OP.localSet, this.#locals.operand);
    this.#takeOperandFuel(() => {
      this.#operand();
      if (shift === 0) return;
      this.#number(shift);
      this.#out.u8(OP.i64ShrU);
    });
    this.#op(OP.localGet, this.#locals.operand);
  }

  /** `if pages wanted > pages allowed then -1 else` the original's instruction, which `EVENT.grown` ends. */
  #grow(): void {
    this.#op(OP.localSet, this.#locals.operand);
    this.#out.raw([OP.memorySize, 0, OP.i64ExtendI32U]);
    this.#operand();
    this.#out.u8(OP.i64Add);
    this.#op(OP.globalGet, this.#globals.pages);
    this.#out.raw([OP.i64GtU, OP.if, I32, OP.i32Const, 0x7f, OP.else]);
    this.#takeOperandFuel(() => {
      this.#operand();
      this.#number(PAGE_FUEL);
      this.#out.u8(OP.i64Mul);
    });
    this.#op(OP.localGet, this.#locals.operand);
  }
}
