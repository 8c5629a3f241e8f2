import type { GgufInsights } from "node-llama-cpp";
import type { Plan } from "./load.ts";

/** Node, the library and llama.cpp's own before any weight is read, bytes; measured 150-190 MB. */
const PROCESS_BYTES = 200e6;
/**
 * Resident bytes for one byte of weights. The file stays mapped, and llama.cpp repacks what its fast kernels need in another
 * order, which is nearly all of a quantised model, and copies a shared output matrix.
 */
const WEIGHTS_FACTOR = 2;

/** Resident memory of a model in use, bytes. Rather too high: what is refused can be loaded smaller, a full machine stops. */
export async function estimateBytes(insights: GgufInsights, plan: Plan): Promise<number> {
  const gpuLayers = typeof plan.gpuLayers === "number" ? plan.gpuLayers : insights.totalLayers;
  const weights = await insights.estimateModelResourceRequirementsV2({ gpuLayers, useMmap: true });
  const context = await insights.estimateContextResourceRequirementsV2({
    contextSize: plan.cells,
    sequences: plan.info.sequences,
    batchSize: plan.batchSize,
    modelGpuLayers: gpuLayers,
    isEmbeddingContext: plan.info.kind === "embedding",
    flashAttention: "auto",
    useMmap: true,
  });
  return Math.ceil(PROCESS_BYTES + WEIGHTS_FACTOR * weights.cpuRam + context.cpuRam);
}
