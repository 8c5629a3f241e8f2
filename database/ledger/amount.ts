/** A whole, safe, non-negative number, or a RangeError: an amount that is none is a bug of the caller's. */
export function microcredits(name: string, amount: number): number {
  if (!Number.isSafeInteger(amount) || amount < 0) {
    throw new RangeError(`${name} must be a whole number of at least 0, not ${amount}`);
  }
  return amount;
}
