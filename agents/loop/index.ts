/** The native loop's face: a model that works on a session with tools. No IO of its own. */
export type {
  Message,
  Model,
  ModelCall,
  ModelDelta,
} from "./model.ts";
export { toolEvent } from "./tool-events.ts";
export { runTurn, type TurnInput } from "./turn.ts";
