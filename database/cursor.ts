import { type RawBuilder, sql } from "kysely";
import { AppError } from "#schemas";

/** A place in a list that runs from new to old: what the next page starts after. */
export interface Place {
  /** Microseconds since 1970: exact, unlike a Date. */
  readonly at: number;
  readonly id: string;
}

/** `created_at` as a Place has it. */
export const createdAtMicros: RawBuilder<number> = sql<number>`(extract(epoch from created_at) * 1000000)::bigint`;

/** Rows that come after a place; `idColumn` is what tells rows of one moment apart. */
export function after({ at, id }: Place, idColumn = "id"): RawBuilder<boolean> {
  return sql<boolean>`(created_at, ${sql.ref(idColumn)}) < (timestamptz 'epoch' + ${at}::bigint * interval '1 microsecond', ${id})`;
}

export function writeCursor({ at, id }: Place): string {
  return Buffer.from(`${at} ${id}`).toString("base64url");
}

/** @throws AppError InvalidParams for what `writeCursor` never wrote. */
export function readCursor(cursor: string): Place {
  const found = /^(\d{1,16}) ([\x21-\x7e]{1,64})$/.exec(Buffer.from(cursor, "base64url").toString("latin1"));
  const [, at, id] = found ?? [];
  if (at === undefined || id === undefined) throw madeUpCursor();
  return { at: Number(at), id };
}

export function madeUpCursor(): AppError {
  const message = "The cursor is not one this list gave out.";
  return new AppError("InvalidParams", message, {
    issues: [{ path: "cursor", message }],
    hint: "Start again without a cursor.",
  });
}
