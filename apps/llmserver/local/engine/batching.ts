import type { CustomBatchingPrioritizationStrategy } from "node-llama-cpp";

/**
 * llama.cpp computes only consecutive ascending sequence ids together. The id travels as the evaluation's priority, see
 * `Slot`; the amounts were shared out by the conductor already.
 */
export const ascendingSequences: CustomBatchingPrioritizationStrategy = ({ items, size }) => {
  let left = size;
  return [...items]
    .sort((a, b) => a.evaluationPriority - b.evaluationPriority)
    .flatMap((item) => {
      const processAmount = Math.min(item.tokens.length, left);
      left -= processAmount;
      return processAmount > 0 ? [{ item, processAmount }] : [];
    });
};
