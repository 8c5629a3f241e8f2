import assert from "node:assert/strict";
import type { ErrorCode } from "#schemas";

/** `act` is refused by this code; bad input always with a hint, a trap with its kind where one is given. */
export async function refused(act: () => Promise<unknown>, code: ErrorCode, kind?: string): Promise<void> {
  await assert.rejects(act, (error: { code: string; details: { hint?: string; kind?: string } }) => {
    assert.equal(error.code, code);
    assert.ok(code !== "InvalidParams" || (error.details.hint ?? "") !== "", "without a hint");
    if (kind !== undefined) assert.equal(error.details.kind, kind);
    return true;
  });
}
