/** A tag as it stands in a document. */
export interface Tag {
  /** In small letters. */
  readonly name: string;
  readonly closing: boolean;
  /** By names in small letters; references in values are resolved as far as addresses need it. */
  readonly attributes: ReadonlyMap<string, string>;
  /** Counted from 1. */
  readonly line: number;
  /** `/>`. */
  readonly selfClosing: boolean;
  /** What stands inside, of the elements whose content is no markup. */
  readonly text: string;
}

export interface Html {
  readonly doctype: boolean;
  readonly tags: readonly Tag[];
  /** Why it could not be read to its end. */
  readonly broken?: string;
}

/** Their content is text up to their own closing tag. */
const RAW = new Set(["script", "style", "title", "textarea"]);
const NAME = /[a-zA-Z][^\s/>]*/y;
const SPACE = /[\s/]*/y;
const BLANK = /\s*/y;
const DOCTYPE = /<!doctype html\s*>/iy;
const ATTRIBUTE = /([^\s"'<>/=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'=<>`]+)))?/y;
const MAX_TAGS = 50_000;

/** Tags of a document in order: enough of the HTML standard's tokenizer for documents that mean what they say. */
export function readHtml(text: string): Html {
  const doctype = beginsWithDoctype(text);
  const tags: Tag[] = [];
  const lines = new LineCounter(text);
  for (let at = text.indexOf("<"); at !== -1; at = text.indexOf("<", at)) {
    const line = lines.at(at);
    const broken = (what: string): Html => ({
      doctype,
      tags,
      broken: `${what} in line ${line} does not end`,
    });
    if (text.startsWith("<!--", at)) {
      const end = text.indexOf("-->", at + 4);
      if (end === -1) return broken("the comment");
      at = end + 3;
      continue;
    }
    if (/^<[!?]/.test(text.slice(at, at + 2))) {
      const end = text.indexOf(">", at);
      if (end === -1) return broken("the declaration");
      at = end + 1;
      continue;
    }
    const closing = text[at + 1] === "/";
    const name = match(NAME, text, at + (closing ? 2 : 1))?.[0];
    if (name === undefined) {
      at += 1;
      continue;
    }
    const tag = readTag(text, at + (closing ? 2 : 1) + name.length, {
      name: name.toLowerCase(),
      closing,
      line,
    });
    if (tag === undefined) return broken(`the tag <${closing ? "/" : ""}${name.slice(0, 20)}>`);
    tags.push(tag.tag);
    if (tags.length > MAX_TAGS) return { doctype, tags, broken: `it has more than ${MAX_TAGS} tags` };
    at = tag.end;
  }
  return { doctype, tags };
}

/** Only space and comments may come before it; a byte order mark counts as space. */
function beginsWithDoctype(text: string): boolean {
  let at = match(BLANK, text, 0)?.[0].length ?? 0;
  while (text.startsWith("<!--", at)) {
    const end = text.indexOf("-->", at + 4);
    if (end === -1) return false;
    at = end + 3;
    at += match(BLANK, text, at)?.[0].length ?? 0;
  }
  return match(DOCTYPE, text, at) !== undefined;
}

function readTag(
  text: string,
  start: number,
  { name, closing, line }: Pick<Tag, "name" | "closing" | "line">,
): { tag: Tag; end: number } | undefined {
  const attributes = new Map<string, string>();
  let at = start;
  for (;;) {
    at += match(SPACE, text, at)?.[0].length ?? 0;
    if (at >= text.length) return undefined;
    if (text[at] === ">") break;
    const found = match(ATTRIBUTE, text, at);
    if (found === undefined) return undefined;
    const [whole, key = "", double, single, bare] = found;
    const known = key.toLowerCase();
    if (!attributes.has(known)) attributes.set(known, resolved(double ?? single ?? bare ?? ""));
    at += whole.length;
  }
  const selfClosing = text[at - 1] === "/";
  let end = at + 1;
  let inside = "";
  if (!closing && !selfClosing && RAW.has(name)) {
    const close = new RegExp(`</${name}[\\s/>]`, "gi");
    close.lastIndex = end;
    const found = close.exec(text);
    if (found === null) return undefined;
    inside = text.slice(end, found.index);
    end = found.index;
  }
  return { tag: { name, closing, attributes, line, selfClosing, text: inside }, end };
}

/** References to characters, by which an address could hide what it is. */
function resolved(value: string): string {
  return value.replace(
    /&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|(amp|colon|sol|tab|newline));?/gi,
    (_, hex, decimal, name) => {
      const named: Record<string, string> = { amp: "&", colon: ":", sol: "/", tab: "\t", newline: "\n" };
      if (name !== undefined) return named[String(name).toLowerCase()] ?? "";
      const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16);
      return characterOf(code);
    },
  );
}

/** The character of a code point; the empty string for none. */
export function characterOf(code: number): string {
  return code <= 0x10ffff ? String.fromCodePoint(code) : "";
}

function match(pattern: RegExp, text: string, at: number): RegExpExecArray | undefined {
  pattern.lastIndex = at;
  return pattern.exec(text) ?? undefined;
}

/** Lines of places that only go forward, in one pass over the text. */
class LineCounter {
  readonly #text: string;
  #line = 1;
  /** Where the present line ends. */
  #end: number;

  constructor(text: string) {
    this.#text = text;
    this.#end = text.indexOf("\n");
  }

  at(place: number): number {
    while (this.#end !== -1 && this.#end < place) {
      this.#line += 1;
      this.#end = this.#text.indexOf("\n", this.#end + 1);
    }
    return this.#line;
  }
}
