import { setTimeout as sleep } from "node:timers/promises";
import { AppError } from "#schemas";

/**
 * The outcome of `work`, or a rejection as soon as `signal` aborts: with its reason, or what `why` makes. The work itself
 * goes on; nobody hears how it ends. Without a signal, just the work.
 */
export async function orAborted<T>(
  work: Promise<T>,
  signal: AbortSignal | undefined,
  why: () => unknown = () => signal?.reason,
): Promise<T> {
  if (signal === undefined) return work;
  const { promise, reject } = Promise.withResolvers<never>();
  const leave = () => reject(why());
  signal.addEventListener("abort", leave, { once: true });
  if (signal.aborted) leave();
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", leave);
    work.catch(() => undefined);
  }
}

/** `act`'s result; AppError Timeout after `ms`, and then nobody waits for it any more. */
export async function within<T>(ms: number, what: string, act: () => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const late = sleep(ms, undefined, { signal: stop.signal }).then(
    () => {
      throw new AppError("Timeout", `${what} took longer than ${ms} ms.`);
    },
    () => new Promise<never>(() => undefined),
  );
  try {
    return await Promise.race([act(), late]);
  } finally {
    stop.abort();
  }
}
