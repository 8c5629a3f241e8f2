/** Small models made on the spot, for tests that run the real engine. */

export { brokenModels } from "./broken.ts";
export { cachedModel } from "./cache.ts";
export { MODEL_NAMES, MODEL_TYPES, type ModelName, type ModelOptions, writeModel } from "./catalogue.ts";
export { SCRIPTED } from "./scripted.ts";
