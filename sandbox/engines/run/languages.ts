import { AppError } from "#schemas";
import type { SandboxHost } from "../../sandboxes.ts";
import { startCommand } from "./command.ts";
import { withNode } from "./node-mounts.ts";

const MIB = 1024 * 1024;
const ASK_MS = 60_000;

/** What is looked for, and how it is asked for its version. */
const QUESTIONS: Readonly<Record<string, readonly string[]>> = {
  node: ["node", "--version"],
  npm: ["npm", "--version"],
  python: ["python3", "--version"],
  pip: ["pip3", "--version"],
  git: ["git", "--version"],
  bash: ["bash", "--version"],
  perl: ["perl", "-e", "print $^V"],
  ruby: ["ruby", "--version"],
  php: ["php", "--version"],
  go: ["go", "version"],
  rust: ["rustc", "--version"],
  java: ["java", "-version"],
  c: ["cc", "--version"],
  make: ["make", "--version"],
  sqlite: ["sqlite3", "--version"],
};

/** One line for each that is there and works: name, path, first line of its answer. */
const SCRIPT = `
ask() {
  name=$1; shift
  path=$(command -v "$1") || return 0
  answer=$(timeout 10 "$@" 2>&1 </dev/null) || return 0
  printf '%s\\t%s\\t%s\\n' "$name" "$path" "$(printf '%s' "$answer" | head -n 1)"
}
`;

/** Something programs in a sandbox can use. */
export interface Language {
  name: string;
  /** As it tells itself, e.g. `3.11.2`. */
  version: string;
  /** Inside. */
  path: string;
}

const known = new WeakMap<object, Promise<Language[]>>();

const quoted = (words: readonly string[]) => words.map((word) => `'${word}'`).join(" ");

async function ask(host: SandboxHost): Promise<Language[]> {
  const slot = await host.slots.acquire(AbortSignal.timeout(ASK_MS));
  try {
    const questions = Object.entries(QUESTIONS).map(([name, words]) => `ask ${quoted([name, ...words])}`);
    const spec = withNode({
      name: "languages",
      argv: ["sh", "-c", `${SCRIPT}${questions.join("\n")}`],
      env: {},
      cwd: "/tmp",
      mounts: [],
      limits: { memoryBytes: 512 * MIB, processes: 64, fileBytes: MIB, tmpBytes: 16 * MIB },
      slot,
    });
    const command = await startCommand(host, spec, { outputBytes: MIB, timeoutMs: ASK_MS });
    const { stdout, exit_code } = await command.finished;
    if (exit_code !== 0) {
      throw new AppError("Timeout", "The languages of this machine did not tell their versions in time.", {
        hint: "Try again when the machine is less busy.",
      });
    }
    return stdout
      .toString("utf8")
      .split("\n")
      .flatMap((line) => {
        const [name, path, answer] = line.split("\t");
        if (name === undefined || path === undefined || answer === undefined) return [];
        return [{ name, path, version: /\d+(\.\d+)+[^\s,()"]*/.exec(answer)?.[0] ?? answer }];
      });
  } finally {
    await slot.release();
  }
}

/**
 * What programs find in a sandbox with Node (`withNode`), by asking each for its version there; once, unless that
 * fails. Throws what starting a command throws.
 */
export function languages(host: SandboxHost): Promise<Language[]> {
  let answer = known.get(host);
  if (answer === undefined) {
    answer = ask(host);
    known.set(host, answer);
    answer.catch(() => known.delete(host));
  }
  return answer;
}
