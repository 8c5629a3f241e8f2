import { AppError, type FieldIssue, MAX_PLAN_STEPS, orderFaults, type StepOrder } from "#schemas";

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
  const { twice, unknown, stuck } = orderFaults(steps);
  const issues = [
    ...twice.map((nth) => ({ path: `${path}[${nth}].id`, message: `"${steps[nth]?.id}" is there already` })),
    ...unknown.map(({ step, place, id }) => ({
      path: `${path}[${step}].after[${place}]`,
      message: `there is no step "${id}"`,
    })),
  ];
  if (issues.length > 0) throw wrongSteps("The plan's steps do not fit together.", issues);
  if (stuck.length === 0) return;
  const circle = circleIn(steps, stuck);
  const message = `${[...circle, circle[0]].map((id) => `"${id}"`).join(" after ")}`;
  throw wrongSteps("Steps of the plan wait for each other.", [{ path, message }]);
}

function wrongSteps(message: string, issues: FieldIssue[]): AppError {
  const hint = `Give each step an id of its own, and name in "after" ids of steps that can end before it.`;
  return new AppError("InvalidParams", message, { hint, issues });
}

/** Of those that are stuck, some each of which comes after the next, and the last after the first. */
function circleIn(steps: readonly StepOrder[], stuck: readonly string[]): string[] {
  const after = new Map(steps.map((step) => [step.id, step.after ?? []]));
  const walked: string[] = [];
  let next = stuck[0];
  while (next !== undefined && !walked.includes(next)) {
    walked.push(next);
    next = after.get(next)?.find((id) => stuck.includes(id));
  }
  return next === undefined ? [] : walked.slice(walked.indexOf(next));
}
