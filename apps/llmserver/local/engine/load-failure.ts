import type { LlamaLogLevel } from "node-llama-cpp";
import { LoadRefusal } from "./refusal.ts";

/** Lines of the native library kept to explain a failure with. */
const KEPT_LINES = 50;
const MAX_REASON = 300;
/** Of a file that was read, a context can hardly fail to be made for another reason. */
const MEMORY =
  /insufficient memory|failed to allocate|unable to allocate|out of memory|failed to create context/i;

/** What the native library says while a model is loaded: its exceptions only say that it failed. */
export class EngineLog {
  readonly #write: (line: string) => void;
  readonly #lines: string[] = [];

  constructor(write: (line: string) => void) {
    this.#write = write;
  }

  add(level: LlamaLogLevel | string, message: string): void {
    const line = message.trim();
    if (line === "") return;
    this.#write(`${level}: ${line}`);
    this.#lines.push(line);
    if (this.#lines.length > KEPT_LINES) this.#lines.shift();
  }

  find(pattern: RegExp): string | undefined {
    return this.#lines.findLast((line) => pattern.test(line));
  }
}

/** Whatever loading threw, in words for the one who wanted the model. */
export function failureOf(
  error: unknown,
  log: EngineLog,
  isMemory: (error: unknown) => boolean,
): LoadRefusal {
  if (error instanceof LoadRefusal) return error;
  const message = error instanceof Error ? error.message : String(error);
  const told = log.find(/unknown model architecture/i);
  if (told !== undefined) {
    const name = /'([^']*)'/.exec(told)?.[1] ?? "";
    return new LoadRefusal(
      "UnsupportedModel",
      `This engine does not know the architecture "${name}".`,
      error,
    );
  }
  if (isMemory(error) || MEMORY.test(message)) {
    return new LoadRefusal(
      "OutOfMemory",
      "There is not enough memory for this model. A smaller context_size or fewer sequences need less.",
      error,
    );
  }
  if (log.find(/invalid data|NaN/i) !== undefined) {
    return new LoadRefusal("InvalidModel", "The model's file is broken. Its weights are damaged.", error);
  }
  if (error instanceof Error && "syscall" in error && "code" in error) {
    return new LoadRefusal("InvalidModel", `The model's file cannot be read (${String(error.code)}).`, error);
  }
  const reason = (log.find(/error|fail|invalid|missing|corrupt/i) ?? message).slice(0, MAX_REASON);
  return new LoadRefusal("InvalidModel", `The model's file cannot be loaded: ${reason}`, error);
}
