import { describe, expect, it } from "vitest";
import { Random } from "../simulation/random.ts";
import { Campaign, type CampaignOptions, type Met } from "./resume-campaign.ts";
import { STAGES } from "./resume-stages.ts";

const SEED = Number(process.env.CDS_SEED ?? 20_261_129);
const SLOW_MS = 900_000;

async function campaign(options: Omit<CampaignOptions, "random">): Promise<Met> {
  await using running = await Campaign.open({ ...options, random: new Random(SEED) });
  const met = await running.run();
  const sorted = met.takeOverMs.toSorted((a, b) => a - b);
  const at = (share: number) => Math.round(sorted[Math.floor((sorted.length - 1) * share)] ?? 0);
  const stages = Object.entries(met.stages).map(([stage, count]) => `${stage} ${count}`);
  console.log(
    `${options.runner}, CDS_SEED=${SEED}: ${met.kills} kills met ${stages.join(", ")}; taken over p50 ${at(0.5)} ms, worst ${at(1)} ms (${sorted.length})`,
  );
  return met;
}

const atWork = ({ stages }: Met) =>
  Object.values(stages).reduce((sum, count) => sum + count) - stages.waiting;

describe("[MU-6] [US-3] kill -9 while agents are at work: each task ends once, nothing is done or paid twice", () => {
  it(
    "at every stage, by the native runner",
    async () => {
      const load = { users: 18, capacity: 16, delayMs: 60, points: 200, stages: STAGES };
      const met = await campaign({ runner: "native", ...load });
      expect(atWork(met)).toBeGreaterThanOrEqual(200);
      expect(STAGES.filter((stage) => met.stages[stage] === 0)).toEqual([]);
    },
    SLOW_MS,
  );

  it(
    "by opencode",
    async () => {
      const stages = ["preparing", "model asked"] as const;
      const met = await campaign({
        runner: "opencode",
        users: 5,
        capacity: 4,
        delayMs: 60,
        points: 10,
        stages,
      });
      expect(atWork(met)).toBeGreaterThanOrEqual(10);
    },
    SLOW_MS,
  );
});
