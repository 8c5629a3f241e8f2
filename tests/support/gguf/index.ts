/** Small models made on the spot, for tests that run the real engine. */

export { cachedModel } from "./cache.ts";
export { MODEL_NAMES, type ModelName, writeModel } from "./catalogue.ts";
export { SCRIPTED } from "./scripted.ts";
