import type { EngineBatch, EngineUsage } from "./types.ts";

/**
 * Several prompts of one request as one stream: choice j of stream i becomes `i * n + j`, the figures are added up.
 * All run at the same time; leaving the loop ends all of them.
 */
export async function* merged(
  streams: readonly AsyncIterable<EngineBatch>[],
  n = 1,
): AsyncGenerator<EngineBatch> {
  const [only] = streams;
  if (streams.length === 1 && only !== undefined) {
    yield* only;
    return;
  }
  const iterators = streams.map((stream) => stream[Symbol.asyncIterator]());
  const usages: EngineUsage[] = streams.map(() => ({ input_tokens: 0, cached_tokens: 0, output_tokens: 0 }));
  const next = (index: number) => iterators[index]?.next().then((result) => ({ index, result }));
  const waiting = new Map(iterators.map((_, index) => [index, next(index)]));
  try {
    while (waiting.size > 0) {
      const first = await Promise.race(waiting.values());
      if (first === undefined) return;
      const { index, result } = first;
      if (result.done === true) {
        waiting.delete(index);
        continue;
      }
      waiting.set(index, next(index));
      usages[index] = result.value.usage;
      const events = result.value.events.map((event) => ({ ...event, choice: index * n + event.choice }));
      yield { events, usage: usages.reduce(add) };
    }
  } finally {
    // A stream left in the middle of a step ends with it; what it then throws has nobody to go to.
    for (const [index, step] of waiting) {
      step?.catch(() => undefined);
      void iterators[index]?.return?.()?.catch(() => undefined);
    }
  }
}

function add(a: EngineUsage, b: EngineUsage): EngineUsage {
  return {
    input_tokens: a.input_tokens + b.input_tokens,
    cached_tokens: a.cached_tokens + b.cached_tokens,
    output_tokens: a.output_tokens + b.output_tokens,
  };
}
