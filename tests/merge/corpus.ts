import { textPairs } from "./corpus-text.ts";
import { treePairs } from "./corpus-trees.ts";
import type { Pair } from "./trees.ts";

/** Pairs of changes of one base: every way we know of in which two people can get in each other's way. */
export const CORPUS: readonly Pair[] = [...textPairs, ...treePairs];
