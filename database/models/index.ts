/** The local models' face. */
export {
  findLocalModel,
  type InstalledFile,
  installModel,
  type LocalModelRow,
  listLocalModels,
  type ModelState,
  resetLoaded,
  setModelState,
  uninstallModel,
} from "./models.ts";
