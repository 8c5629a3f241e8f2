import { toAppError } from "#schemas";
import type { Availability } from "./types.ts";

/** What does not work here, by what was thrown when it was tried; `hint` where the error has none. */
export function notAvailable(error: unknown, hint?: string): Availability {
  const { message, details } = toAppError(error);
  const advice = details.hint ?? hint;
  return {
    available: false,
    tier: null,
    reasons: [message],
    ...(advice === undefined ? {} : { hint: advice }),
  };
}

/** As `probe`, but a success is found out once; a failure is tried again at the next call. */
export function remembered(probe: () => Promise<Availability>): () => Promise<Availability> {
  let found: Promise<Availability> | undefined;
  return async () => {
    found ??= probe();
    const availability = await found;
    if (!availability.available) found = undefined;
    return availability;
  };
}
