import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { EngineName } from "../types.ts";
import { FEATURES, type Feature, type Fixture, type FixtureMaker } from "./features.ts";
import { fsFixture } from "./fs.ts";
import { microFixture } from "./micro.ts";
import { runFixture } from "./run.ts";
import { wasmFixture } from "./wasm.ts";

const MAKERS: readonly FixtureMaker[] = [fsFixture, runFixture, wasmFixture, microFixture];
const names = Object.keys(FEATURES) as Feature[];

type Cell = "shown" | { noNeed: string };
/** What the run found: per engine and feature, whether it was shown, or why there is nothing to show. */
const found = new Map<EngineName, Map<Feature, Cell>>();

describe.each(MAKERS.map((maker) => ({ name: maker.name, maker })))("the $name engine", ({ name, maker }) => {
  let fixture: Fixture;
  let cells: Map<Feature, Cell>;
  beforeAll(async () => {
    fixture = await maker.open();
    if (!fixture.availability.available) return;
    cells = new Map();
    found.set(name, cells);
  }, 300_000);
  afterAll(() => fixture?.[Symbol.asyncDispose]());

  it("tells whether it works here, and if not, why and what to do", () => {
    const { available, reasons, hint } = fixture.availability;
    if (!available) {
      expect(reasons.join("")).not.toBe("");
      expect(hint ?? "").not.toBe("");
    }
    expect(fixture.engine.name).toBe(name);
  });

  // `closed` stands last among the features: nothing works after it.
  it.each(names)("%s", { timeout: 300_000 }, async (feature) => {
    const scenario = fixture.scenarios[feature];
    if (typeof scenario === "string") {
      expect(scenario).toMatch(/\w/);
      cells?.set(feature, { noNeed: scenario });
      return;
    }
    if (!fixture.availability.available) return;
    await scenario();
    cells.set(feature, "shown");
  });
});

const GUIDE = fileURLToPath(new URL("../../docs/sandbox.md", import.meta.url));
const [BEGIN, END] = ["<!-- parity: begin -->", "<!-- parity: end -->"];

/** The table for docs/sandbox.md, with a note for every feature that an engine has no need of. */
function table(): string {
  const engines = MAKERS.map(({ name }) => name);
  const notes: string[] = [];
  const rows = names.map((feature) => {
    const cells = engines.map((engine) => {
      const cell = found.get(engine)?.get(feature);
      if (cell === undefined) return "not run";
      if (cell === "shown") return "yes";
      notes.push(`${engine}, ${feature}: ${cell.noNeed}`);
      return `- [${notes.length}]`;
    });
    return `| ${FEATURES[feature]} | ${cells.join(" | ")} |`;
  });
  const head = `| | ${engines.join(" | ")} |\n|---|${engines.map(() => "---|").join("")}`;
  return [head, ...rows, "", ...notes.map((note, index) => `[${index + 1}] ${note}  `)].join("\n");
}

// Where an engine cannot work there is no whole table to compare.
it("docs/sandbox.md has the table that this run found", () => {
  if (found.size < MAKERS.length) return;
  const guide = readFileSync(GUIDE, "utf8");
  const [before, after] = [guide.indexOf(BEGIN) + BEGIN.length, guide.indexOf(END)];
  if (process.env.CDS_WRITE_PARITY !== undefined) {
    writeFileSync(GUIDE, `${guide.slice(0, before)}\n${table()}\n${guide.slice(after)}`);
  } else expect(guide.slice(before, after).trim()).toBe(table().trim());
});
