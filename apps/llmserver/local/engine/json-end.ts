/**
 * Finds where one JSON value ends in a text that comes in pieces. Grammars of the library go on after the value, with
 * line breaks that make the model stop; they are neither wanted in the answer nor worth waiting for.
 * Only for text a grammar has made: it is not checked.
 */
export class JsonEnd {
  #depth = 0;
  #inString = false;
  #escaped = false;
  #begun = false;
  #done = false;

  get done(): boolean {
    return this.#done;
  }

  /** The part of `piece` that belongs to the value; white space around the value does not. */
  push(piece: string): string {
    let start = 0;
    for (let i = 0; i < piece.length; i++) {
      if (this.#done) return piece.slice(start, i);
      const character = piece.charAt(i);
      if (!this.#begun && character.trim() === "") {
        start = i + 1;
        continue;
      }
      this.#begun = true;
      // A number or a word at the top ends where it is followed by something, which is not its own.
      if (this.#depth === 0 && !this.#inString && character.trim() === "") {
        this.#done = true;
        return piece.slice(start, i);
      }
      this.#take(character);
    }
    return piece.slice(start);
  }

  #take(character: string): void {
    if (this.#inString) {
      if (this.#escaped) this.#escaped = false;
      else if (character === "\\") this.#escaped = true;
      else if (character === '"') {
        this.#inString = false;
        this.#done = this.#depth === 0;
      }
    } else if (character === '"') this.#inString = true;
    else if (character === "{" || character === "[") this.#depth++;
    else if (character === "}" || character === "]") {
      this.#depth--;
      this.#done = this.#depth === 0;
    }
  }
}
