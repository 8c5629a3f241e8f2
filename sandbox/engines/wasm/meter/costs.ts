import { OP } from "./opcodes.ts";

/** What things cost, in units of fuel; and what they take on the stack, in bytes. */

/** Segments of at most this cost are charged with the one before: fewer charges, some fuel taken too early. */
export const MERGE_COST = 24;
/** Functions without calls and loops that cost no more are not charged themselves: every call of one pays for it. */
export const LEAF_COST = 12;
export const CALL_COST = 3 + LEAF_COST;
export const INDIRECT_CALL_COST = 6 + LEAF_COST;
export const GROW_COST = 100;
/** Locals that are set to zero for one unit. */
export const LOCALS_PER_FUEL = 4;
/** What a frame takes besides its locals and operands, bytes. */
export const FRAME_BASE = 128;
export const SLOT_BYTES = 8;
export const VECTOR_SLOT_BYTES = 16;

/** One each, but for structure: that is no instruction of the machine. */
export const COST: Uint8Array = new Uint8Array(256).fill(1);
for (const free of [0x01, OP.block, OP.else, OP.end, OP.drop]) COST[free] = 0;
export const BULK_BYTES: ReadonlySet<number> = new Set([8, 10, 11]);
export const BULK_ELEMENTS: ReadonlySet<number> = new Set([12, 14, 15, 17]);
