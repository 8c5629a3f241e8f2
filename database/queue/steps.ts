import { AppError, type FieldIssue, MAX_PLAN_STEPS } from "#schemas";

/** A step's name within its plan, and the names of those it comes after. */
export interface StepOrder {
  readonly id: string;
  readonly after?: readonly string[] | undefined;
}

/**
 * Refuse steps that can never all run.
 * @param path where they stand in what the caller sent, for the issues.
 * @throws AppError InvalidParams: none or too many, a name twice, an unknown one, or some that wait for each other.
 */
export function checkSteps(steps: readonly StepOrder[], path = "steps"): void {
  if (steps.length === 0 || steps.length > MAX_PLAN_STEPS) {
    throw wrongSteps(`A plan has 1 to ${MAX_PLAN_STEPS} steps.`, [
      { path, message: `has ${steps.length} steps` },
    ]);
  }
  const issues: FieldIssue[] = [];
  const known = new Set<string>();
  for (const [nth, { id }] of steps.entries()) {
    if (known.has(id)) issues.push({ path: `${path}[${nth}].id`, message: `"${id}" is there already` });
    known.add(id);
  }
  for (const [nth, { after = [] }] of steps.entries()) {
    for (const [of, id] of after.entries()) {
      if (known.has(id)) continue;
      issues.push({ path: `${path}[${nth}].after[${of}]`, message: `there is no step "${id}"` });
    }
  }
  if (issues.length > 0) throw wrongSteps("The plan's steps do not fit together.", issues);
  const circle = findCircle(steps);
  if (circle.length === 0) return;
  const message = `${[...circle, circle[0]].map((id) => `"${id}"`).join(" after ")}`;
  throw wrongSteps("Steps of the plan wait for each other.", [{ path, message }]);
}

function wrongSteps(message: string, issues: FieldIssue[]): AppError {
  const hint = `Give each step an id of its own, and name in "after" ids of steps that can end before it.`;
  return new AppError("InvalidParams", message, { hint, issues });
}

/** Steps each of which comes after the next, and the last after the first; empty when there are none. */
function findCircle(steps: readonly StepOrder[]): string[] {
  const left = new Map(steps.map(({ id, after = [] }) => [id, new Set(after)]));
  for (let free = freeOf(left); free.length > 0; free = freeOf(left)) {
    for (const id of free) left.delete(id);
    for (const after of left.values()) for (const id of free) after.delete(id);
  }
  const walked: string[] = [];
  let next = left.keys().next().value;
  while (next !== undefined && !walked.includes(next)) {
    walked.push(next);
    next = left.get(next)?.values().next().value;
  }
  return next === undefined ? [] : walked.slice(walked.indexOf(next));
}

function freeOf(left: ReadonlyMap<string, ReadonlySet<string>>): string[] {
  return [...left].filter(([, after]) => after.size === 0).map(([id]) => id);
}
