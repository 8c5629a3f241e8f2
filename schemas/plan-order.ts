/** A step's name within its plan, and the names of those it comes after. */
export interface StepOrder {
  readonly id: string;
  readonly after?: readonly string[] | undefined;
}

/** What keeps a plan's steps from fitting together; all empty when nothing does. */
export interface OrderFaults {
  /** Which steps have a name that an earlier one has, as their numbers from 0. */
  readonly twice: readonly number[];
  /** Names in `after` that no step has: number of the step, place in its `after`, the name. */
  readonly unknown: readonly { readonly step: number; readonly place: number; readonly id: string }[];
  /** Names of those that wait for each other, or for such ones; not looked for where there is another fault. */
  readonly stuck: readonly string[];
}

/** Whether every step of a plan can come to its turn. */
export function orderFaults(steps: readonly StepOrder[]): OrderFaults {
  const known = new Set<string>();
  const twice = steps.flatMap(({ id }, step) => {
    const before = known.has(id);
    known.add(id);
    return before ? [step] : [];
  });
  const unknown = steps.flatMap(({ after = [] }, step) =>
    after.flatMap((id, place) => (known.has(id) ? [] : [{ step, place, id }])),
  );
  const stuck = twice.length + unknown.length > 0 ? [] : stuckAmong(steps);
  return { twice, unknown, stuck };
}

function stuckAmong(steps: readonly StepOrder[]): string[] {
  for (let waiting = steps; ; ) {
    const left = new Set(waiting.map(({ id }) => id));
    const next = waiting.filter(({ after = [] }) => after.some((id) => left.has(id)));
    if (next.length === waiting.length) return next.map(({ id }) => id);
    waiting = next;
  }
}
