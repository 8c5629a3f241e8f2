/** Why a module is refused: broken, too large, or in need of a proposal that is not supported. */
export class InvalidModuleError extends Error {
  /** The proposal's name, where one is the reason. */
  readonly proposal: string | undefined;

  constructor(message: string, proposal?: string) {
    super(message);
    this.name = "InvalidModuleError";
    this.proposal = proposal;
  }
}

export function unsupported(proposal: string): InvalidModuleError {
  return new InvalidModuleError(`The module needs ${proposal}, which is not supported.`, proposal);
}

export function tooMany(what: string, count: number, limit: number): InvalidModuleError {
  return new InvalidModuleError(`The module has ${count} ${what}; ${limit} are allowed.`);
}
