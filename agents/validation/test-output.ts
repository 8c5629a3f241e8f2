/** What a test program said of itself. */
export interface TestCounts {
  /** Tests that really ran: passed or failed, not skipped. */
  readonly ran: number;
  readonly failed: number;
}

type Reader = (text: string) => TestCounts | undefined;

// biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with the escape character.
const COLOURS = /\u001b\[[\d;]*m/g;

/** Sums of the last line each pattern matches: programs sum up at their end, and may run one after another. */
const READERS: readonly Reader[] = [nodeTest, unittest, pytest, jest, vitest, mocha, cargo, go];

/** Counts out of what a test program wrote; undefined when none of the known programs speaks so. */
export function testCounts(output: string): TestCounts | undefined {
  const text = output.replace(COLOURS, "");
  const found = READERS.flatMap((reader) => reader(text) ?? []);
  if (found.length === 0) return undefined;
  return found.reduce((sum, each) => ({ ran: sum.ran + each.ran, failed: sum.failed + each.failed }));
}

/** node:test, as TAP (`# tests 3`) and as people read it (`ℹ tests 3`). */
function nodeTest(text: string): TestCounts | undefined {
  const passed = sumOf(text, /^(?:#|ℹ) pass (\d+)$/gm);
  const failed = sumOf(text, /^(?:#|ℹ) fail (\d+)$/gm) ?? 0;
  return passed === undefined ? undefined : { ran: passed + failed, failed };
}

function unittest(text: string): TestCounts | undefined {
  const ran = sumOf(text, /^Ran (\d+) tests? in /gm);
  if (ran === undefined) return undefined;
  const skipped = sumOf(text, /^(?:OK|FAILED) \(.*?skipped=(\d+)/gm) ?? 0;
  const failures = sumOf(text, /^FAILED \(.*?failures=(\d+)/gm) ?? 0;
  const errors = sumOf(text, /^FAILED \(.*?errors=(\d+)/gm) ?? 0;
  return { ran: ran - skipped, failed: failures + errors };
}

/** `2 failed, 3 passed in 0.12s`, with or without rulers around it. */
function pytest(text: string): TestCounts | undefined {
  const line = text.match(/^(?:=+ )?(?:no tests ran|(?:\d+ [a-z]+(?:, |(?= in)))+) in [\d.]+s.*$/gm)?.at(-1);
  if (line === undefined) return undefined;
  const passed = sumOf(line, /(\d+) (?:passed|xpassed)/g) ?? 0;
  const failed = sumOf(line, /(\d+) (?:failed|errors?)/g) ?? 0;
  return { ran: passed + failed, failed };
}

function jest(text: string): TestCounts | undefined {
  const line = text.match(/^Tests:\s+.*\btotal$/gm)?.at(-1);
  return line === undefined ? undefined : summed(line);
}

function vitest(text: string): TestCounts | undefined {
  const line = text.match(/^[ \t]*Tests {2}.*\(\d+\)$/gm)?.at(-1);
  return line === undefined ? undefined : summed(line);
}

function mocha(text: string): TestCounts | undefined {
  const passed = sumOf(text, /^[ \t]*(\d+) passing \(/gm);
  const failed = sumOf(text, /^[ \t]*(\d+) failing$/gm) ?? 0;
  return passed === undefined ? undefined : { ran: passed + failed, failed };
}

function cargo(text: string): TestCounts | undefined {
  const passed = sumOf(text, /^test result: \w+\. (\d+) passed/gm);
  const failed = sumOf(text, /^test result: .*? (\d+) failed/gm) ?? 0;
  return passed === undefined ? undefined : { ran: passed + failed, failed };
}

/** `go test -v`: without it, nothing is counted. */
function go(text: string): TestCounts | undefined {
  const passed = text.match(/^[ \t]*--- PASS: /gm)?.length ?? 0;
  const failed = text.match(/^[ \t]*--- FAIL: /gm)?.length ?? 0;
  return passed + failed === 0 ? undefined : { ran: passed + failed, failed };
}

function summed(line: string): TestCounts {
  const passed = sumOf(line, /(\d+) passed/g) ?? 0;
  const failed = sumOf(line, /(\d+) failed/g) ?? 0;
  return { ran: passed + failed, failed };
}

function sumOf(text: string, pattern: RegExp): number | undefined {
  const found = [...text.matchAll(pattern)];
  return found.length === 0 ? undefined : found.reduce((sum, [, digits]) => sum + Number(digits), 0);
}
