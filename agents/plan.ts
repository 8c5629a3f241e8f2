import { MAX_PLAN_STEPS, orderFaults, type PlanStep, planStepSchema } from "#schemas";
import { agents, findAgent } from "./registry.ts";
import { fencedBlocks } from "./validation/fences.ts";

const MAX_BLOCK_CHARS = 400_000;
/** Runner, model and priority are the user's to choose: an agent's steps have those of its own task. */
const stepSchema = planStepSchema.pick({ id: true, agent: true, prompt: true, after: true });

/** Put beside the prompt of a task that may make a plan. */
export const PLAN_PROMPT = `You may hand work on. When the task is better done in steps by several agents, end your last message with
one block of this form, at most ${MAX_PLAN_STEPS} steps; each starts when those in "after" are done, and sees their files:
\`\`\`plan
[{"id": "code", "agent": "CodeAgent", "prompt": "…"}, {"id": "tests", "agent": "TestAgent", "prompt": "…", "after": ["code"]}]
\`\`\`
Agents: ${agents.map((agent) => agent.name).join(", ")}. Each sees the project and its own prompt, nothing of this talk.
Leave the block out when you do the work yourself.`;

/** A plan in an answer: no steps and no problems when there is none. */
export interface ParsedPlan {
  readonly steps: PlanStep[];
  /** One sentence each, safe to show; the steps are not to be taken when there is one. */
  readonly problems: string[];
}

/** Read the steps an agent wants done after its own task. */
export function parsePlan(answer: string): ParsedPlan {
  const blocks = fencedBlocks(answer, "plan");
  const [block, ...others] = blocks;
  if (block === undefined) return { steps: [], problems: [] };
  if (others.length > 0) return refused(`A plan is one block \`\`\`plan; found: ${blocks.length}.`);
  if (block.length > MAX_BLOCK_CHARS)
    return refused(`The plan is longer than ${MAX_BLOCK_CHARS} characters.`);
  let value: unknown;
  try {
    value = JSON.parse(block);
  } catch (error) {
    return refused(`The plan is no valid JSON: ${error instanceof Error ? error.message.slice(0, 200) : ""}`);
  }
  if (!Array.isArray(value)) return refused("The plan must be a JSON list of steps.");
  if (value.length > MAX_PLAN_STEPS) {
    return refused(`The plan has ${value.length} steps; ${MAX_PLAN_STEPS} are the most.`);
  }
  const steps: PlanStep[] = [];
  const problems: string[] = [];
  for (const [index, each] of value.entries()) {
    const { success, data, error } = stepSchema.safeParse(each);
    if (success) steps.push(data);
    else {
      const wrong = error.issues
        .slice(0, 5)
        .map(({ path, message }) => `${path.join(".") || "it"}: ${message}`);
      problems.push(`Step ${index + 1} of the plan does not fit: ${wrong.join("; ")}.`);
    }
  }
  if (problems.length === 0) problems.push(...orderProblems(steps));
  return problems.length > 0 ? { steps: [], problems } : { steps, problems };
}

function refused(problem: string): ParsedPlan {
  return { steps: [], problems: [problem] };
}

/** Whether agents and names are known, and every step can come to its turn. */
function orderProblems(steps: readonly PlanStep[]): string[] {
  const { twice, unknown, stuck } = orderFaults(steps);
  const nobody = steps.filter(({ agent }) => findAgent(agent) === undefined);
  if (stuck.length > 0 && nobody.length === 0) {
    return [`Steps of the plan wait for each other: "${stuck.join('", "')}".`];
  }
  return [
    ...twice.map((step) => `The plan has two steps "${steps[step]?.id}".`),
    ...nobody.map(({ id, agent }) => `Step "${id}" of the plan names no agent: "${agent}".`),
    ...[...Map.groupBy(unknown, ({ step }) => step)].map(
      ([step, names]) =>
        `Step "${steps[step]?.id}" of the plan comes after no step: "${names.map(({ id }) => id).join('", "')}".`,
    ),
  ];
}
