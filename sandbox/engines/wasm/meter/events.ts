/** Where something has to be put into the code, in the order of the code. */
export const EVENT = {
  /** Fuel for what follows; `detail` is the segment. */
  charge: 0,
  /** After a call of one of the module's own functions. */
  called: 1,
  /** After a call of an imported one. */
  calledHost: 2,
  /** Before one that works on as many bytes, or elements, as lie on the stack. */
  bytes: 3,
  elements: 4,
  /** Before and after `memory.grow`. */
  grow: 5,
  grown: 6,
  /** Before a tail call. */
  leave: 7,
} as const;
