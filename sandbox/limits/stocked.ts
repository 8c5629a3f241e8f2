import type { SandboxLimits } from "../types.ts";
import type { ControlGroup, ControlGroups, LimitDriver } from "./limits.ts";
import { shareMachine } from "./shared.ts";
import { GroupStock, type StockWork } from "./stock.ts";

/** What one kind of control groups has of its own. */
export interface GroupKind extends StockWork {
  /** Make the directory, or directories, in which all groups are. */
  open(): Promise<void>;
  /** Remove what `open` made; every group is gone by then. */
  close(): Promise<void>;
  /** What can be asked of a group. */
  at(name: string): Omit<ControlGroup, "attach" | "remove">;
  /** CPU time that all groups have used so far, removed ones included, in ms; read at once. */
  cpuMs(): number;
}

/** Only whether a group can be made and limited counts. */
const TRIAL: SandboxLimits = { memoryBytes: 1 << 24, processes: 4, fileBytes: 1, tmpBytes: 1 };

/** Limits by one kind of control groups, made in advance and shared by all owners. Throws where they do not work. */
export async function openStocked(kind: GroupKind): Promise<LimitDriver> {
  const stock = new GroupStock(kind);
  const groups: ControlGroups = {
    async create(limits) {
      const name = await stock.take(limits);
      return {
        ...kind.at(name),
        attach: () => stock.begun(name),
        remove: async () => stock.giveBack(name),
      };
    },
    cpuMs: () => kind.cpuMs(),
    async close() {
      await stock.close();
      await kind.close();
    },
  };
  try {
    await kind.open();
    await (await groups.create(TRIAL)).remove();
    return shareMachine(groups);
  } catch (error) {
    await groups.close();
    throw error;
  }
}
