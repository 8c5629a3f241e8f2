import type { CheckReport } from "#schemas";
import type { Verdict } from "../agent.ts";
import type { CheckRun } from "../checks.ts";

/** More than a person reads, or a model mends in one round. */
const MAX_PROBLEMS = 20;
/** Of a command's output in a report: its end, where test programs sum up. */
const REPORT_CHARS = 4000;
/** Of a command's output in a problem's sentence. */
const QUOTE_CHARS = 1200;

/** A verdict with no more problems than anybody reads. */
export function verdict(problems: readonly string[], checks: readonly CheckReport[] = []): Verdict {
  return { problems: problems.slice(0, MAX_PROBLEMS), checks: [...checks] };
}

/** All that several checks found. */
export function joined(...verdicts: readonly Verdict[]): Verdict {
  return verdict(
    verdicts.flatMap(({ problems }) => problems),
    verdicts.flatMap(({ checks }) => checks),
  );
}

/** Whether a command did what it was asked to. */
export function succeeded(run: CheckRun): boolean {
  return run.code === 0 && !run.timedOut;
}

/** Whether a command is not there at all: a shell's way to say so. */
export function missing(run: CheckRun): boolean {
  return run.code === 127 || run.code === 126;
}

/** What was run, for the task's owner. */
export function reportOf(
  name: string,
  command: string,
  run: CheckRun,
  rest: Partial<Pick<CheckReport, "before" | "passed">> = {},
): CheckReport {
  return { name, command, passed: succeeded(run), output: endOf(run.output, REPORT_CHARS), ...rest };
}

/** How a command ended, in words, with the end of what it said. */
export function howItEnded(run: CheckRun): string {
  const how = run.timedOut
    ? "did not end in time"
    : run.code === null
      ? "was ended by a limit"
      : `ended with code ${run.code}`;
  const said = endOf(run.output, QUOTE_CHARS);
  return said === "" ? how : `${how}: ${said}`;
}

function endOf(output: string, chars: number): string {
  const text = output.trim();
  return text.length > chars ? `…${text.slice(-chars)}` : text;
}
