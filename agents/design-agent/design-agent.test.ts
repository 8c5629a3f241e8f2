import { describe, expect, it } from "vitest";
import { findAgent } from "#agents";
import { type Files, TestChange } from "#tests/support/check-trees.ts";
import { within } from "#tests/support/within.ts";
import { pictureProblems, previewProblems } from "./preview.ts";

const page = (body: string, head = "") =>
  `<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Sign in</title>${head}</head>\n<body>${body}</body>\n</html>\n`;
const REASONS = `# Sign in\n\nSee sign-in.html. ${"People come here once a day and want to be through at once. ".repeat(5)}\n`;
const GOOD = { "design/sign-in.html": page("<main><h1>Sign in</h1></main>"), "design/sign-in.md": REASONS };

async function problems(after: Record<string, string | Uint8Array | null>, before: Files = {}) {
  using change = new TestChange(before, after);
  return (
    (await findAgent("DesignAgent")?.validate(change.change, change))?.problems ?? ["not registered"]
  ).join("\n");
}

describe("DesignAgent's result", () => {
  it("is a preview with reasons, below design/", async () => {
    expect(await problems(GOOD)).toBe("");
    const { "design/sign-in.md": reasons, ...preview } = GOOD;
    expect(await problems(preview, { "design/sign-in.md": reasons })).toBe("");
  });

  it("needs no new preview where there is one that is talked of", async () => {
    expect(await problems({}, GOOD)).toBe("");
    expect(await problems({ "design/sign-in.md": `${REASONS}And quiet.\n` }, GOOD)).toBe("");
    expect(await problems({ "design/sign-in.html": null }, GOOD)).toContain("There is no preview");
  });

  it("is refused without a preview, without reasons, or when they do not name it", async () => {
    expect(await problems({})).toContain("There is no preview");
    expect(await problems({ "design/sign-in.md": REASONS })).toContain("There is no preview");
    expect(await problems({ "design/sign-in.html": GOOD["design/sign-in.html"] })).toContain(
      "The reasons are missing",
    );
    expect(await problems({ ...GOOD, "design/sign-in.md": "sign-in.html is nice." })).toContain(
      "The reasons are missing",
    );
    expect(await problems({ ...GOOD, "design/other.html": page("") })).toBe(
      "design/other.html: no Markdown file below design/ names it.",
    );
  });

  it("is refused with a file elsewhere, of another kind, or that is no text", async () => {
    expect(await problems({ ...GOOD, "src/app.css": "a{}" })).toContain("src/app.css: lies outside design/");
    expect(await problems({ ...GOOD, "a.md": null }, { "a.md": "x" })).toContain(
      "a.md: lies outside design/",
    );
    expect(await problems({ ...GOOD, "design/a.js": "1" })).toContain("design/a.js: proposals are");
    expect(await problems({ ...GOOD, "design/a.html": new Uint8Array([0xff]) })).toContain("is no text");
    expect(await problems({ ...GOOD, "design/b.svg": "<svg><script>1</script></svg>" })).toContain(
      "runs no script",
    );
  });
});

describe("a preview", () => {
  it("may be anything that stands alone", () => {
    const body = `<p>one<p>two<ul><li>a<li>b</ul><table><tr><td>x</table><br><img src="data:image/png;base64,AA" alt="">
      <a href="https://example.test/">away</a> <a href="#x">in</a> <form action="#"><input required></form>
      <svg viewBox="0 0 1 1"><use href="#i"/><path d="M0 0"/></svg> 1 < 2 <!-- <b> --> <textarea><b></textarea>
      <script>if (1 < 2 && "</b>") document.title = "x";</script><div style="background: url(#g)"></div>`;
    const head = `<style>a { background: url("data:image/svg+xml,x") }</style><meta name="viewport" content="width=device-width">`;
    expect(previewProblems(page(body, head))).toEqual([]);
    expect(previewProblems(`<!-- note -->\n${page("")}`)).toEqual([]);
  });

  it("is a whole document", () => {
    expect(previewProblems("<p>hi</p>")).toEqual([
      "it does not begin with <!doctype html>.",
      "its <html> element tells no language (`lang`).",
      "it has no title.",
      "it has no body.",
    ]);
    expect(previewProblems(page("").replace("Sign in", " "))).toEqual(["it has no title."]);
    expect(previewProblems(page("").replace('"en"', '"?"'))).toHaveLength(1);
  });

  it("closes what it opens", () => {
    expect(previewProblems(page("<div><span></div>"))).toEqual(["line 4: <span> is not closed."]);
    expect(previewProblems(page("</div>"))).toEqual(["line 4: </div> closes nothing."]);
    expect(previewProblems(page("\n<main>"))).toEqual(["line 5: <main> is not closed."]);
    for (const open of ["<!-- x", "<script>1", '<a href="', "<div ", "<style>a{}", "<!x", '<p a="1"b"c>']) {
      expect(previewProblems(`${page("")}${open}`)[0]).toMatch(/^it cannot be read: .* does not end\.$/);
    }
  });

  it.each([
    '<img src="https://x.test/a.png" alt="">',
    '<img src="a.png" alt="">',
    "<img src=//x.test/a.png>",
    '<img srcset="data:,x 1x, https://x.test/a 2x">',
    '<script src="https://x.test/a.js"></script>',
    '<script src="data:text/javascript,alert(1)"></script>',
    '<link rel="stylesheet" href="style.css">',
    '<iframe src="#"></iframe>',
    "<object></object>",
    '<base href="https://x.test/">',
    '<meta http-equiv="Refresh" content="0;url=https://x.test">',
    "<style>@import 'a.css';</style>",
    "<style>a{background:url(https://x.test/a)}</style>",
    "<p style=\"background:url('//x.test/a')\"></p>",
    "<style>a{background:u\\72l(https://x.test/a)}</style>",
    "<style>@im/**/port 'a.css'</style>",
    "<style>a{content:'/*';background:url(https://x.test/a);content:'*/'}</style>",
    "<style>a{background:url(   'https://x.test/a')}</style>",
    "<script>fetch('/a')</script>",
    "<script>location.href = 'https://x.test'</script>",
    "<script type=module>import a from './a.js'</script>",
    `<p onclick="new WebSocket('wss://x.test')"></p>`,
    '<form action="https://x.test/"></form>',
    '<button formaction="/send"></button>',
    '<a href="java&#115;cript:alert(1)">x</a>',
    '<a href=" javascript&colon;alert(1)">x</a>',
    '<svg><image xlink:href="https://x.test/a.png"/></svg>',
    '<video poster="p.jpg"></video>',
    "<IMG SRC='http&#58;//x.test'>",
  ])("loads nothing and leads nowhere: %s", (body) => {
    expect(previewProblems(page(body)).join()).toMatch(/line 4: /);
    expect(pictureProblems(`<svg>\n\n\n${body}</svg>`).join()).toMatch(/line 4: /);
  });

  it("is read in time, whatever it is", () => {
    for (const piece of [
      "<",
      "<a ",
      "<a b=",
      "<!--",
      "<a '",
      "<script>",
      "</a>",
      "<p>",
      "&#x",
      "<a b=c ",
      "<!doctype html>",
      "url(",
    ]) {
      within(10_000, () => previewProblems(page(piece.repeat(500_000 / piece.length))));
    }
    for (const piece of ["<!---->", "<!---->\n", "<!--"]) {
      within(10_000, () => previewProblems(piece.repeat(500_000 / piece.length)));
    }
    within(10_000, () => previewProblems(page("", `<style>url(${" ".repeat(500_000)}</style>`)));
    expect(previewProblems(page("x".repeat(1_100_000)))).toEqual(["it is larger than 1 MiB."]);
    expect(previewProblems(page("<p>".repeat(60_000)))).toEqual([
      "it cannot be read: it has more than 50000 tags.",
    ]);
  });
});
