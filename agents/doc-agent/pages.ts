import type { ProposedFile } from "../agent.ts";
import type { Tree } from "../checks.ts";
import { textOf } from "../validation/files.ts";
import { type Link, type Page, readPage } from "./markdown.ts";

const MAX_MANIFESTS = 100;
/** Reading a page takes up to a second per MB, in which nobody else gets on. */
const MAX_PAGE_CHARS = 512 * 1024;

/** What is wrong with the changed Markdown pages and was not before. */
export async function pageProblems(
  files: readonly ProposedFile[],
  before: Tree,
  after: Tree,
): Promise<string[]> {
  const now = new Project(after, await after.list());
  const then = new Project(before, await before.list());
  const problems: string[] = [];
  for (const { path, before: old, after: content } of files) {
    const text = isPage(path) ? textOf(content) : undefined;
    if (text === undefined) continue;
    const oldText = textOf(old) ?? "";
    if (text.length > MAX_PAGE_CHARS) {
      if (oldText.length <= MAX_PAGE_CHARS)
        problems.push(`${path}: is too long to be checked: make it several pages.`);
      continue;
    }
    const page = readPage(text);
    const former = readPage(oldText.slice(0, MAX_PAGE_CHARS));
    problems.push(...shapeProblems(path, page, former));
    problems.push(...(await linkProblems(path, page.links, former.links, now, then)));
    const known = new Set(former.scripts);
    for (const name of page.scripts.filter((each) => !known.has(each))) {
      if (!(await now.hasScript(name)))
        problems.push(`${path}: names the npm script "${name}", which is not there.`);
    }
  }
  return problems;
}

export function isPage(path: string): boolean {
  return /\.(md|mdx|markdown)$/i.test(path);
}

function shapeProblems(path: string, page: Page, former: Page): string[] {
  const problems: string[] = [];
  if (page.openFence !== undefined && former.openFence === undefined) {
    problems.push(`${path}: the code fence in line ${page.openFence} is not closed.`);
  }
  if (page.titles.length > Math.max(1, former.titles.length)) {
    problems.push(
      `${path}: has ${page.titles.length} first-level headings, in lines ${page.titles.join(", ")}.`,
    );
  }
  return problems;
}

async function linkProblems(
  path: string,
  links: readonly Link[],
  former: readonly Link[],
  now: Project,
  then: Project,
): Promise<string[]> {
  const old = new Set(former.map((link) => link.target));
  const problems: string[] = [];
  for (const { target, line } of links) {
    const wrong = await now.missing(path, target);
    // What led nowhere before is somebody else's.
    if (wrong === undefined || (old.has(target) && (await then.missing(path, target)) !== undefined))
      continue;
    problems.push(`${path}: line ${line}: the link to "${target.slice(0, 100)}" leads nowhere: ${wrong}.`);
  }
  return problems;
}

/** A project that links lead into. */
class Project {
  readonly #tree: Tree;
  readonly #paths: ReadonlySet<string>;
  readonly #folders = new Set<string>([""]);
  readonly #anchors = new Map<string, ReadonlySet<string>>();
  #scripts: ReadonlySet<string> | undefined;

  constructor(tree: Tree, paths: readonly string[]) {
    this.#tree = tree;
    this.#paths = new Set(paths);
    for (const path of paths) {
      for (let at = path.indexOf("/"); at !== -1; at = path.indexOf("/", at + 1))
        this.#folders.add(path.slice(0, at));
    }
  }

  /** What is missing where a link on a page leads; undefined when all is there, or it leads out of the project. */
  async missing(page: string, target: string): Promise<string | undefined> {
    if (/^([a-z][a-z0-9+.-]*:|\/\/)/i.test(target) || target === "" || target === "#") return undefined;
    const [, place = "", , anchor = ""] = /^([^?#]*)(\?[^#]*)?#?(.*)$/.exec(target) ?? [];
    const path = place === "" ? page : resolved(page, place);
    if (path === undefined) return "it lies outside the project";
    if (!this.#paths.has(path) && !this.#folders.has(path)) return `there is no ${path}`;
    if (anchor === "" || !isPage(path)) return undefined;
    const anchors = await this.#anchorsOf(path);
    return anchors.has(decoded(anchor)) ? undefined : `${path} has no heading or anchor "${anchor}"`;
  }

  /** Whether any package.json of the project has the script. */
  async hasScript(name: string): Promise<boolean> {
    this.#scripts ??= new Set(await this.#readScripts());
    return this.#scripts.has(name) || (name === "start" && this.#paths.has("server.js"));
  }

  async #anchorsOf(path: string): Promise<ReadonlySet<string>> {
    const known = this.#anchors.get(path);
    if (known !== undefined) return known;
    const text = textOf(await this.#tree.read(path)) ?? "";
    const { anchors } = readPage(text.slice(0, MAX_PAGE_CHARS));
    this.#anchors.set(path, anchors);
    return anchors;
  }

  async #readScripts(): Promise<string[]> {
    const names: string[] = [];
    for (const path of [...this.#paths]
      .filter((each) => /(^|\/)package\.json$/.test(each))
      .slice(0, MAX_MANIFESTS)) {
      const text = textOf(await this.#tree.read(path));
      if (text !== undefined) names.push(...scriptNames(text));
    }
    return names;
  }
}

function scriptNames(text: string): string[] {
  try {
    const value: unknown = JSON.parse(text);
    const scripts = value !== null && typeof value === "object" && "scripts" in value ? value.scripts : null;
    return scripts !== null && typeof scripts === "object" ? Object.keys(scripts) : [];
  } catch {
    return [];
  }
}

/** A path within the project; undefined when it leads out of it. */
function resolved(page: string, place: string): string | undefined {
  const parts = place.startsWith("/") ? [] : page.split("/").slice(0, -1);
  for (const part of decoded(place).split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.pop() === undefined) return undefined;
  }
  return parts.join("/");
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
