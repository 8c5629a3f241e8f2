import type { TaskEvent, WaitReason } from "#schemas";

/** Control characters besides tab and line feed would let a model rewrite the reader's terminal. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out.
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** A run as plain text, in the words of the OpenCode plan. */
export class Transcript {
  readonly #username: string;
  readonly #announced = new Set<string>();
  #startOfLine = true;
  /** Whether the task has left the queue. */
  started = false;

  constructor(username: string) {
    this.#username = username;
  }

  /** What one event adds. */
  next(event: TaskEvent): string {
    switch (event.type) {
      case "state":
        this.started ||= event.state === "running";
        return event.state === "running" && (event.attempt ?? 1) > 1
          ? this.#line(`[Versuch ${event.attempt}]`)
          : "";
      case "text":
        return this.#text(event.delta);
      case "tool":
        return this.#tool(event);
      case "done":
        return this.#end(event);
      default:
        return "";
    }
  }

  waiting(position: number, reason: WaitReason | undefined): string {
    return this.#line(`[Warteschlange: Platz ${position}${reason === undefined ? "" : `, ${reason}`}]`);
  }

  /** The stream ends although the task has not. */
  broken(): string {
    return this.#line("[ERROR] Der Server wird beendet; der Auftrag läuft weiter und steht in der Historie.");
  }

  #tool(event: Extract<TaskEvent, { type: "tool" }>): string {
    if (event.status === "pending" || this.#announced.has(event.call_id)) return "";
    this.#announced.add(event.call_id);
    const title = event.title === undefined || event.title === event.name ? "" : ` ${event.title}`;
    return this.#line(`[${event.name}${title}]`.replaceAll(/\s+/g, " "));
  }

  #end(event: Extract<TaskEvent, { type: "done" }>): string {
    if (event.state === "completed") return this.#line(`[✔ User ${this.#username} - Fertig!]`);
    if (event.state === "cancelled") return this.#line("[ERROR] Abgebrochen.");
    const { message, hint } = event.error ?? { message: "Der Lauf ist gescheitert." };
    return this.#line(`[ERROR] ${message}${hint === undefined ? "" : ` ${hint}`}`);
  }

  #text(delta: string): string {
    const text = delta.replaceAll(CONTROL, "");
    if (text !== "") this.#startOfLine = text.endsWith("\n");
    return text;
  }

  #line(text: string): string {
    const line = `${this.#startOfLine ? "" : "\n"}${text.replaceAll(CONTROL, "")}\n`;
    this.#startOfLine = true;
    return line;
  }
}
