/** The ledger's face. */
export { type BalancePoint, type BalanceQuery, balanceHistory } from "./balance-history.ts";
export {
  type Budget,
  projectBudget,
  setProjectBudget,
  setUserBudget,
  userBudget,
  userBudgets,
} from "./budgets.ts";
export {
  type NewCall,
  openCall,
  releaseCall,
  type Settled,
  type Settlement,
  settleCall,
  sweepOpenCalls,
} from "./calls.ts";
export {
  auditLedger,
  balanceOf,
  type EntryFilter,
  type EntryPage,
  type LedgerEntry,
  listEntries,
  type UserOff,
} from "./read.ts";
export {
  listUsageCalls,
  summarizeUsage,
  type UsageCall,
  type UsageFilter,
  type UsageGrouping,
  type UsageSummary,
  usageOfUser,
} from "./usage.ts";
