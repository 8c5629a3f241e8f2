import { jsText } from "./js-text.ts";

/** What a test file has to show. */
export interface TestFile {
  readonly tests: number;
  readonly assertions: number;
  /** Tests that are left out, or leave others out. */
  readonly skips: number;
}

interface Language {
  readonly files: RegExp;
  readonly tests: RegExp;
  readonly assertions: RegExp;
  readonly skips: RegExp;
  /** The text without what is no code. */
  bare(text: string): string;
}

const TEST_FILES = [
  /[._-](test|tests|spec)\.[a-z]+$/i,
  /(^|\/)(test_[^/]*|conftest)\.py$/,
  /(^|\/)[A-Z]\w*(Test|Tests|Spec)\.(java|kt|cs|scala|php|swift)$/,
  /(^|\/)(tests?|__tests__|specs?)\//,
];

const LANGUAGES: readonly Language[] = [
  {
    files: /\.[cm]?[jt]sx?$/,
    tests: /(?<![.\w$])(?:it|test|specify)(?:\s{0,9}\.\s{0,9}\w{1,40}){0,5}\s{0,9}\(/g,
    assertions:
      /\bassert(?:\s{0,9}\.\s{0,9}\w{1,40}){0,5}\s{0,9}\(|\bexpect\w*(?:\s{0,9}\.\s{0,9}\w{1,40}){0,5}\s{0,9}\(|\.should\b|\bt\s{0,9}\.\s{0,9}(?:is|not|ok|true|false|equals?|same|deepEqual|like|throws|rejects|regex|match)\w*\s{0,9}\(/g,
    skips:
      /\b(?:it|test|describe|suite|context|specify)\s{0,9}\.\s{0,9}(?:skip|only|todo|fails|failing)\w*|(?<![.\w$])(?:xit|xtest|xdescribe|fit|fdescribe)\s{0,9}\(|[{,]\s{0,9}(?:skip|only|todo):(?!false)|\bt\s{0,9}\.\s{0,9}(?:skip|todo)\s{0,9}\(/g,
    bare: (text) => jsText(text)?.bare ?? text,
  },
  {
    files: /\.py$/,
    tests: /\bdef test\w*/g,
    assertions: /\bassert\b|\.assert\w+\(|\.fail\(|\bpytest\.raises\b/g,
    skips:
      /@(?:pytest\.mark|unittest)\.(?:skip\w*|xfail|expectedFailure)|\.skipTest\(|\bpytest\.(?:skip|xfail)\(|\bSkipTest\b/g,
    bare: (text) =>
      text.replace(
        // A string that is not closed ends with its line: looking for its end from every quote takes for ever.
        /("""|''')[\s\S]*?\1|"[^"\\\n]*(?:\\.[^"\\\n]*)*"?|'[^'\\\n]*(?:\\.[^'\\\n]*)*'?|#.*/g,
        '""',
      ),
  },
  {
    files: /./,
    tests: /\bfunc Test\w*|#\[(?:\w+::)?test\]|@Test\b|\bit\s{0,9}\(?["' ]/g,
    assertions: /\bassert\w*|\bexpect\w*|\bt\.(?:Error|Fatal|Fail)\w*/g,
    skips: /\bt\.Skip\w*|#\[ignore|@(?:Ignore|Disabled)\b/g,
    bare: (text) => text.replace(/^[ \t]*(\/\/|#(?!\[)).*$/gm, ""),
  },
];

/** Whether a file is there for tests, by the names that test programs go by. */
export function isTestPath(path: string): boolean {
  return TEST_FILES.some((pattern) => pattern.test(path));
}

/** Whether a file holds tests itself: no fixture, no snapshot, no helper without one. */
export function holdsTests(path: string, text: string): boolean {
  return isTestPath(path) && testFile(path, text).tests > 0;
}

/** Tests, assertions and skips in a file, counted in its code and not in its comments and strings. */
export function testFile(path: string, text: string): TestFile {
  const language = LANGUAGES.find(({ files }) => files.test(path));
  if (language === undefined) return { tests: 0, assertions: 0, skips: 0 };
  const bare = language.bare(text);
  const count = (pattern: RegExp) => bare.match(pattern)?.length ?? 0;
  return {
    tests: count(language.tests),
    assertions: count(language.assertions),
    skips: count(language.skips),
  };
}
