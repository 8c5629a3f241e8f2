import { AppError } from "#schemas";

/** @throws AppError InvalidParams when a call asks for more time than the operator allows, in ms. */
export function checkTime(wanted: number | undefined, most: number, hint?: string): void {
  if (wanted === undefined || wanted <= most) return;
  const message = `params.timeout_ms: At most ${most} here.`;
  throw new AppError("InvalidParams", message, {
    issues: [{ path: "params.timeout_ms", message }],
    ...(hint === undefined ? {} : { hint }),
  });
}
