/** The local models' face. */
export {
  findLocalModel,
  type InstalledFile,
  installModel,
  type LocalModelRow,
  listLocalModels,
  resetLoaded,
  setModelState,
  uninstallModel,
} from "./models.ts";
