/** Accounts: users, their keys and sessions, their providers. */
export * from "./authenticator.ts";
export * from "./balance.ts";
export { costOf, type OwnPrice, type Price, setPrice, type Tokens } from "./prices.ts";
export * from "./provider-resolution.ts";
export * from "./providers.ts";
export * from "./refresh-tokens.ts";
export {
  bumpTokenVersion,
  countAdmins,
  createUser,
  deleteUser,
  findUser,
  findUserByApiKeyHash,
  findUserByName,
  listUsers,
  type NewUser,
  setApiKeyHash,
  setRole,
  type UserPage,
} from "./users.ts";
