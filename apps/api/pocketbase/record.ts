import type { UserRow } from "#database";

/** A user as PocketBase shows one. Nothing secret is in it; `api_key` can only be written. */
export interface UserRecord {
  id: string;
  collectionId: string;
  collectionName: string;
  username: string;
  name: string;
  email: string;
  emailVisibility: boolean;
  verified: boolean;
  role: string;
  created: string;
  updated: string;
}

export function recordOf(user: UserRow): UserRecord {
  return {
    id: user.id,
    collectionId: "_pb_users_auth_",
    collectionName: "users",
    username: user.username,
    name: user.username,
    email: user.email ?? "",
    emailVisibility: true,
    verified: true,
    role: user.role,
    created: pocketbaseTime(user.created_at),
    updated: pocketbaseTime(user.updated_at),
  };
}

/** `2026-11-20 10:00:00.000Z`: a blank where ISO 8601 has a T. */
function pocketbaseTime(date: Date): string {
  return date.toISOString().replace("T", " ");
}
