import type { LoadFailure, RefusedFields } from "./protocol.ts";

/** A request that is not served, with a reason its sender can act on. */
export class Refusal extends Error {
  readonly fields: RefusedFields;

  constructor(fields: RefusedFields) {
    super(fields.message);
    this.name = "Refusal";
    this.fields = fields;
  }
}

/** 400 naming the parameter that cannot be served. */
export function invalid(param: string, message: string, code = "unsupported_value"): Refusal {
  return new Refusal({ status: 400, message: `${param}: ${message}`, code, param });
}

/** A model that is not loaded, with a reason a person understands. */
export class LoadRefusal extends Error {
  readonly code: LoadFailure;

  constructor(code: LoadFailure, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "LoadRefusal";
    this.code = code;
  }
}
