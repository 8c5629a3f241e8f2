/** The native loop's face: a model that works on a session with tools. No IO of its own. */
export type {
  Message,
  Model,
  ModelCall,
  ModelDelta,
  ModelUsage,
  ToolCall,
  ToolSpec,
} from "./model.ts";
export { runTurn, TURN_ENDS, type TurnEnd, type TurnInput, type TurnLimits } from "./turn.ts";
