import { describe, expect, it } from "vitest";
import { Random } from "../simulation/random.ts";
import { AGENT_SCRIPTS } from "../support/agent-scripts.ts";
import { Campaign, type CampaignOptions, type Met } from "./resume-campaign.ts";
import { STAGES } from "./resume-stages.ts";

const SEED = Number(process.env.CDS_SEED ?? 20_261_129);
const SLOW_MS = 900_000;

async function campaign(options: Omit<CampaignOptions, "random">): Promise<Met> {
  await using running = await Campaign.open({ ...options, random: new Random(SEED) });
  const met = await running.run();
  const sorted = met.takeOverMs.toSorted((a, b) => a - b);
  const at = (share: number) => Math.round(sorted[Math.floor((sorted.length - 1) * share)] ?? 0);
  const counts = (of: Record<string, number>) =>
    Object.entries(of)
      .map(([name, count]) => `${name} ${count}`)
      .join(", ");
  console.log(
    `${options.runner}, CDS_SEED=${SEED}: ${met.kills} kills met ${counts(met.stages)}; ${counts(met.outcomes)}; ` +
      `taken over p50 ${at(0.5)} ms, worst ${at(1)} ms (${sorted.length})`,
  );
  return met;
}

const atWork = ({ stages }: Met) =>
  Object.values(stages).reduce((sum, count) => sum + count) - stages.waiting;

describe("[MU-6] [US-3] kill -9 while agents are at work: each task ends once, nothing is done or paid twice", () => {
  it(
    "at every stage, by the native runner",
    async () => {
      const load = { users: 18, perUser: 2, capacity: 16, delayMs: 60, points: 200 };
      const met = await campaign({ runner: "native", ...load, reachMs: 8000, stages: STAGES });
      expect(atWork(met)).toBeGreaterThanOrEqual(200);
      expect(STAGES.filter((stage) => met.stages[stage] === 0)).toEqual([]);
      expect(met.agents).toEqual(Object.keys(AGENT_SCRIPTS).sort());
    },
    SLOW_MS,
  );

  it(
    "by opencode",
    async () => {
      const stages = ["preparing", "model asked"] as const;
      const load = { users: 4, perUser: 1, capacity: 4, delayMs: 60, points: 10 };
      const met = await campaign({ runner: "opencode", ...load, reachMs: 60_000, stages });
      expect(atWork(met)).toBeGreaterThanOrEqual(10);
    },
    SLOW_MS,
  );
});
