/** What JavaScript and TypeScript come down to without their comments. */
interface JsText {
  /** Comments left out, white space as little as tells tokens and lines apart: equal for the same code. */
  readonly code: string;
  /** The same with empty strings, templates and regular expressions. */
  readonly bare: string;
}

const PIECES = {
  space: /\s+/y,
  comment: /\/\/[^\n\r\u2028\u2029]*|\/\*[\s\S]*?\*\//y,
  string: /"[^"\\\n\r]*(?:\\[\s\S][^"\\\n\r]*)*"|'[^'\\\n\r]*(?:\\[\s\S][^'\\\n\r]*)*'/y,
  word: /[\w$\u0080-\uffff]+/y,
  regex: /\/(?:[^\\/[\n\r]|\\[^\n\r]|\[(?:[^\]\\\n\r]|\\[^\n\r])*\])+\/[a-z]*/y,
  /** From a backtick or a closing brace to the next placeholder or the end of the template. */
  template: /[`}][^`\\$]*(?:(?:\\[\s\S]|\$(?!\{))[^`\\$]*)*(?:`|\$\{)/y,
} as const;

/** After these a slash begins a regular expression. */
const OPERATOR_WORDS = new Set(
  "return typeof case in of delete void throw new do else instanceof yield await".split(" "),
);

/** Longer texts are made by programs; and reading one (some 2 us a token) must not keep everybody waiting. */
const MAX_CHARS = 256 * 1024;

/** Undefined for what is not tokenized for certain, such as JSX or an open string, and for what is too long. */
export function jsText(text: string): JsText | undefined {
  if (text.length > MAX_CHARS) return undefined;
  const scanner = new Scanner(text);
  const code: string[] = [];
  const bare: string[] = [];
  let space = "";
  for (let piece = scanner.next(); piece !== undefined; piece = scanner.next()) {
    const { kind, text: said } = piece;
    if (kind === "unknown") return undefined;
    if (kind === "space" || kind === "comment") {
      // A comment over several lines parts statements like a line's end.
      if (/[\n\r\u2028\u2029]/.test(said)) space = "\n";
      else if (space === "") space = " ";
      continue;
    }
    const between = needed(space, code.at(-1) ?? "", said);
    space = "";
    code.push(between, said);
    bare.push(between, kind === "string" || kind === "template" || kind === "regex" ? '""' : said);
  }
  return scanner.whole ? { code: code.join(""), bare: bare.join("") } : undefined;
}

/** Space beside brackets and commas says nothing. */
function needed(space: string, left: string, right: string): string {
  if (left === "") return "";
  return space === " " && (/[()[\]{},;:]$/.test(left) || /^[()[\]{},;:]/.test(right)) ? "" : space;
}

type Kind = keyof typeof PIECES | "punctuation" | "unknown";

class Scanner {
  readonly #text: string;
  #at = 0;
  /** The last piece that is no space or comment. */
  #last = "";
  /** Open braces within each placeholder of the templates around. */
  readonly #placeholders: number[] = [];

  constructor(text: string) {
    this.#text = text;
  }

  /** Whether every template has ended. */
  get whole(): boolean {
    return this.#placeholders.length === 0;
  }

  next(): { kind: Kind; text: string } | undefined {
    if (this.#at >= this.#text.length) return undefined;
    const kind = this.#kind();
    const text = this.#match(kind);
    if (text === undefined) return { kind: "unknown", text: "" };
    this.#at += text.length;
    if (kind === "template") this.#follow(text);
    if (kind === "punctuation") this.#count(text);
    if (kind !== "space" && kind !== "comment") this.#last = text;
    return { kind, text };
  }

  #kind(): Kind {
    const char = this.#text[this.#at] ?? "";
    const second = this.#text[this.#at + 1] ?? "";
    if (/\s/.test(char)) return "space";
    if (char === "/" && (second === "/" || second === "*")) return "comment";
    if (char === '"' || char === "'") return "string";
    if (char === "`" || (char === "}" && this.#placeholders.at(-1) === 0)) return "template";
    if (char === "/" && this.#regexFits()) return "regex";
    if (/[\w$\u0080-\uffff]/.test(char)) return "word";
    return "punctuation";
  }

  #match(kind: Kind): string | undefined {
    if (kind === "unknown") return undefined;
    if (kind === "punctuation") return this.#text[this.#at];
    const piece = PIECES[kind];
    piece.lastIndex = this.#at;
    return piece.exec(this.#text)?.[0];
  }

  #regexFits(): boolean {
    if (this.#last === "") return true;
    if (/[\w$\u0080-\uffff]$/.test(this.#last)) return OPERATOR_WORDS.has(this.#last);
    return !/[)\]}"'`/]$/.test(this.#last);
  }

  #follow(template: string): void {
    if (template.startsWith("}")) this.#placeholders.pop();
    if (template.endsWith("${")) this.#placeholders.push(0);
  }

  #count(char: string): void {
    const depth = this.#placeholders.length - 1;
    const open = this.#placeholders[depth];
    if (open === undefined) return;
    if (char === "{") this.#placeholders[depth] = open + 1;
    if (char === "}") this.#placeholders[depth] = open - 1;
  }
}
