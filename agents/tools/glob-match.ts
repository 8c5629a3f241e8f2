/** Alternatives a pattern's braces may come to. */
const MAX_ALTERNATIVES = 64;

/**
 * Whether paths match a pattern of `*`, `?`, `[a-z]`, `{a,b}` and `**`; one without a slash matches in every directory,
 * as in a .gitignore. Matching takes no more steps than the lengths multiplied, whatever the pattern: `steps` counts
 * them over all paths, and it throws RangeError when they are used up.
 */
export class GlobMatcher {
  readonly #alternatives: readonly (readonly string[])[];
  #steps: number;

  constructor(pattern: string, steps: number) {
    this.#steps = steps;
    const trimmed = pattern.replace(/^(\.?\/)+/, "");
    const anywhere = trimmed.includes("/") ? trimmed : `**/${trimmed}`;
    this.#alternatives = expandBraces(anywhere).map((one) => one.split("/").filter((name) => name !== ""));
  }

  matches(path: string): boolean {
    const names = path.split("/");
    return this.#alternatives.some((pattern) => this.#matchNames(pattern, names));
  }

  /** Going back to the last `**` only: what an earlier one could take, the last one can take as well. */
  #matchNames(pattern: readonly string[], names: readonly string[]): boolean {
    let [at, name, star, starName] = [0, 0, -1, 0];
    while (name < names.length) {
      const part = pattern[at];
      this.#step();
      if (part === "**") {
        star = at++;
        starName = name;
      } else if (part !== undefined && this.#matchName(part, names[name] ?? "")) {
        at += 1;
        name += 1;
      } else if (star !== -1) {
        at = star + 1;
        name = ++starName;
      } else return false;
    }
    return at === pattern.length;
  }

  #matchName(pattern: string, name: string): boolean {
    let [at, char, star, starChar] = [0, 0, -1, 0];
    while (char < name.length) {
      this.#step();
      if (pattern[at] === "*") {
        star = at++;
        starChar = char;
        continue;
      }
      const end = matchOne(pattern, at, name[char] ?? "");
      if (end > 0) {
        at = end;
        char += 1;
      } else if (star !== -1) {
        at = star + 1;
        char = ++starChar;
      } else return false;
    }
    while (pattern[at] === "*") at += 1;
    return at === pattern.length;
  }

  #step(): void {
    this.#steps -= 1;
    if (this.#steps < 0) throw new RangeError("the pattern takes too many steps");
  }
}

/** Match one character at `at`. @returns where the pattern goes on, or 0 for no match. */
function matchOne(pattern: string, at: number, char: string): number {
  const part = pattern[at];
  if (part === undefined) return 0;
  if (part === "?") return at + 1;
  if (part === "[") {
    const end = pattern.indexOf("]", at + 2);
    if (end !== -1) return inClass(pattern.slice(at + 1, end), char) ? end + 1 : 0;
  }
  if (part === "\\" && at + 1 < pattern.length) return pattern[at + 1] === char ? at + 2 : 0;
  return part === char ? at + 1 : 0;
}

function inClass(members: string, char: string): boolean {
  const negated = members.startsWith("!") || members.startsWith("^");
  const list = negated ? members.slice(1) : members;
  let found = false;
  for (let at = 0; at < list.length && !found; at += 1) {
    const [first, last] = [list[at] ?? "", list[at + 2]];
    if (list[at + 1] === "-" && last !== undefined) {
      found = first <= char && char <= last;
      at += 2;
    } else found = first === char;
  }
  return found !== negated;
}

/** Every pattern without braces that one with braces stands for; braces that do not close are letters. */
function expandBraces(pattern: string): string[] {
  const done: string[] = [];
  const open = [pattern];
  for (let one = open.pop(); one !== undefined; one = open.pop()) {
    if (done.length + open.length >= MAX_ALTERNATIVES) return [...done, one, ...open];
    const inner = /\{([^{}]*)\}/.exec(one);
    if (inner?.[1] === undefined) {
      done.push(one);
      continue;
    }
    const before = one.slice(0, inner.index);
    const after = one.slice(inner.index + inner[0].length);
    open.push(...inner[1].split(",").map((choice) => before + choice + after));
  }
  return done;
}
