import { characterOf, type Html, readHtml, type Tag } from "./html.ts";

/** Elements without content and closing tag. */
const VOID = new Set("area base br col embed hr img input link meta param source track wbr".split(" "));
/** Elements whose closing tag may be left out. */
const OPTIONAL = new Set(
  "html head body p li dt dd option optgroup thead tbody tfoot tr td th colgroup caption rt rp".split(" "),
);
/** Elements that bring in other documents, whatever they hold. */
const FOREIGN = new Set("iframe frame frameset object embed applet portal base".split(" "));
/** Attributes that make the browser load something when the document is shown. */
const LOADING = new Set("src srcset poster background data code archive imagesrcset manifest".split(" "));
/** Elements whose `href` is loaded: others' are followed only when a person clicks. */
const LOADING_HREF = new Set(
  "link image use feimage script pattern lineargradient radialgradient".split(" "),
);
const LOADING_CSS = /@import\b|\burl\( ?["']? ?(?!["']? ?(?:data:|#))[^)\s]|\bimage-set\( ?["'](?!data:)/i;
const LOADING_SCRIPT =
  /\bfetch\s*\(|\bXMLHttpRequest\b|\bWebSocket\b|\bEventSource\b|\bsendBeacon\b|\bimport\s*\(|\bimport\s+["'{*\w]|\bimportScripts\b|\bnew\s+(?:Shared)?Worker\b|\bwindow\.open\b|\blocation\s*(?:\.\w+\s*)?=/;

/** With pictures inside; reading one takes a moment in which nobody else gets on. */
const MAX_CHARS = 1024 * 1024;

/** What keeps an HTML file from being a preview that stands alone; one sentence each without its path. */
export function previewProblems(text: string): string[] {
  if (text.length > MAX_CHARS) return ["it is larger than 1 MiB."];
  const html = readHtml(text);
  if (html.broken !== undefined) return [`it cannot be read: ${html.broken}.`];
  return [...wholeProblems(html), ...nestingProblems(html.tags), ...loadProblems(html.tags)];
}

/** What an SVG file loads or runs. */
export function pictureProblems(text: string): string[] {
  if (text.length > MAX_CHARS) return ["it is larger than 1 MiB."];
  const { tags, broken } = readHtml(text);
  if (broken !== undefined) return [`it cannot be read: ${broken}.`];
  const scripts = tags.filter((tag) => tag.name === "script" && !tag.closing);
  return [...scripts.map(({ line }) => `line ${line}: a picture runs no script.`), ...loadProblems(tags)];
}

function wholeProblems({ doctype, tags }: Html): string[] {
  const problems: string[] = [];
  const first = (name: string) => tags.find((tag) => tag.name === name && !tag.closing);
  if (!doctype) problems.push("it does not begin with <!doctype html>.");
  if (!/^[a-z]{2,3}(-[a-z\d]+)*$/i.test(first("html")?.attributes.get("lang") ?? "")) {
    problems.push("its <html> element tells no language (`lang`).");
  }
  if ((first("title")?.text.trim() ?? "") === "") problems.push("it has no title.");
  if (first("body") === undefined) problems.push("it has no body.");
  return problems;
}

/** The first element that is not closed, or closed without having been opened: the rest follows from it. */
function nestingProblems(tags: readonly Tag[]): string[] {
  const open: Tag[] = [];
  for (const tag of tags) {
    if (VOID.has(tag.name) || tag.selfClosing) continue;
    if (!tag.closing) {
      open.push(tag);
      continue;
    }
    const at = open.findLastIndex((each) => each.name === tag.name);
    if (at === -1) return [`line ${tag.line}: </${tag.name}> closes nothing.`];
    const between = open.slice(at + 1).find((each) => !OPTIONAL.has(each.name));
    if (between !== undefined) return [`line ${between.line}: <${between.name}> is not closed.`];
    open.length = at;
  }
  const left = open.find((each) => !OPTIONAL.has(each.name));
  return left === undefined ? [] : [`line ${left.line}: <${left.name}> is not closed.`];
}

function loadProblems(tags: readonly Tag[]): string[] {
  return tags.flatMap((tag) =>
    tag.closing ? [] : tagProblems(tag).map((what) => `line ${tag.line}: ${what}`),
  );
}

function tagProblems(tag: Tag): string[] {
  const { name, attributes, text } = tag;
  const problems: string[] = [];
  if (FOREIGN.has(name)) problems.push(`<${name}> brings in another document.`);
  if (name === "meta" && attributes.get("http-equiv")?.trim().toLowerCase() === "refresh") {
    problems.push("it goes on to another page by itself.");
  }
  for (const [key, value] of attributes) {
    const plain = key.replace(/^xlink:/, "");
    const loads = LOADING.has(plain) || (plain === "href" && LOADING_HREF.has(name));
    if (loads && !isInside(value)) problems.push(`\`${plain}\` of <${name}> loads ${shown(value)}.`);
    if (/^(action|formaction|ping)$/.test(plain) && !isInside(value))
      problems.push(`<${name}> sends to ${shown(value)}.`);
    if (
      plain === "href" &&
      !LOADING_HREF.has(name) &&
      /^[^a-z]*javascript:/i.test(value.replace(/\s/g, ""))
    ) {
      problems.push(`<${name}> runs a script as an address.`);
    }
    if (key === "style" && shows(LOADING_CSS, value))
      problems.push(`the style of <${name}> loads something.`);
    if (key.startsWith("on") && shows(LOADING_SCRIPT, value))
      problems.push(`\`${key}\` of <${name}> loads something.`);
  }
  if (name === "style" && shows(LOADING_CSS, text)) problems.push("the styles load something.");
  if (name === "script" && shows(LOADING_SCRIPT, text))
    problems.push("the script loads something, or leaves the page.");
  return problems;
}

/** Whether it stands in a text; also where escapes or comments hide it, and where strings only look like comments. */
function shows(pattern: RegExp, text: string): boolean {
  const plain = text
    .replace(/\\([0-9a-f]{1,6}) ?/gi, (_, hex: string) => characterOf(Number.parseInt(hex, 16)))
    .replace(/\s+/g, " ");
  return pattern.test(plain) || pattern.test(plain.replace(/\/\*.*?\*\//g, ""));
}

/** Addresses that are part of the document: nothing is asked of anybody. */
function isInside(value: string): boolean {
  const plain = value.replace(/\s/g, "");
  return plain === "" || plain.startsWith("#") || /^data:(image|font|audio|video)\//i.test(plain);
}

function shown(value: string): string {
  const plain = value.replace(/\s+/g, " ").trim();
  return `"${plain.length > 60 ? `${plain.slice(0, 59)}…` : plain}"`;
}
