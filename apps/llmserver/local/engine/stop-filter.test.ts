import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { StopFilter } from "./stop-filter.ts";

function shown(stops: readonly string[], pieces: readonly string[]) {
  const filter = new StopFilter(stops);
  let text = "";
  let stopped = false;
  for (const piece of pieces) {
    const filtered = filter.push(piece);
    text += filtered.text;
    stopped ||= filtered.stopped;
  }
  return { text: text + filter.rest(), stopped };
}

describe("stop strings", () => {
  it("are found across the borders of pieces, and nothing of them is shown", () => {
    expect(shown(["\n\nUser:"], ["Yes.", "\n", "\nUs", "er", ": no"])).toEqual({
      text: "Yes.",
      stopped: true,
    });
  });

  it("the one that is complete first wins", () => {
    expect(shown(["d", "bc"], ["abcd"])).toEqual({ text: "a", stopped: true });
  });

  it("a beginning that is not continued is shown, at the end as well", () => {
    expect(shown(["<end>"], ["a <e", "x <en"])).toEqual({ text: "a <ex <en", stopped: false });
  });

  it("holds back no more than it must", () => {
    const filter = new StopFilter(["stop"]);
    expect(filter.push("it st")).toEqual({ text: "it ", stopped: false });
    expect(filter.push("ay ")).toEqual({ text: "stay ", stopped: false });
  });

  it("shows what comes before the first that is complete, however the text is cut", () => {
    const letters = fc.array(fc.constantFrom("a", "b", "aa", "ab", "ba", ""), { maxLength: 12 });
    const stop = fc
      .array(fc.constantFrom("a", "b"), { minLength: 1, maxLength: 4 })
      .map((all) => all.join(""));
    fc.assert(
      fc.property(letters, fc.array(stop, { maxLength: 3 }), (pieces, stops) => {
        const whole = pieces.join("");
        let end = 0;
        while (end < whole.length && !stops.some((each) => whole.slice(0, end).endsWith(each))) end++;
        const met = stops.filter((each) => whole.slice(0, end).endsWith(each)).map((each) => each.length);
        const text = whole.slice(0, end - Math.max(0, ...met));
        expect(shown(stops, pieces)).toEqual({ text, stopped: met.length > 0 });
      }),
    );
  });
});
