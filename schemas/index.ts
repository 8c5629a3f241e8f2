/** The contract's face: what every other room may import by name. */
export * from "./auth.ts";
export * from "./errors.ts";
export * from "./events.ts";
export * from "./ids.ts";
export * from "./local-models.ts";
export * from "./notifications.ts";
export * from "./plan-order.ts";
export * from "./rpc/account.ts";
export * from "./rpc/agent.ts";
export * from "./rpc/budget.ts";
export * from "./rpc/change.ts";
export * from "./rpc/index.ts";
export * from "./rpc/method.ts";
export * from "./rpc/project.ts";
export * from "./rpc/usage.ts";
