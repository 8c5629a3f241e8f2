import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Studio, startStudio } from "#apps/studio/studio.ts";
import { readConfig } from "#platform/config/config.ts";
import type { Log } from "#platform/log.ts";
import type { Session } from "#schemas";
import { type Client, createClient } from "#schemas/client/index.ts";

export const ADMIN = { username: "admin", password: "an admin's long password" };

export interface TestUser {
  username: string;
  session: Session;
  client: Client;
}

export interface TestStudio extends AsyncDisposable {
  studio: Studio;
  /** The one origin with every route. */
  url: string;
  dataDir: string;
  admin: TestUser;
  /** A new account, signed in. */
  user(username: string): Promise<TestUser>;
}

/** Settings that let tests run one task after the other; each test names what it wants otherwise. */
export const TEST_ENV: Readonly<Record<string, string>> = {
  CDS_UI_PORT: "0",
  CDS_API_PORT: "0",
  CDS_AUTH_PORT: "0",
  CDS_LLM_PORT: "0",
  CDS_ADMIN_USERNAME: ADMIN.username,
  CDS_ADMIN_PASSWORD: ADMIN.password,
  CDS_RATE_LIMIT_SECONDS: "0",
  CDS_SPARE_PROCESSES: "0",
  CDS_VM_POOL: "0",
  CDS_LOGINS_PER_MINUTE: "10000",
  CDS_REQUESTS_PER_IP: "100000",
  CDS_REQUESTS_PER_IP_BURST: "100000",
  CDS_MEMORY_THRESHOLD: "0.98",
  CDS_DISK_THRESHOLD: "0.99",
  CDS_SHUTDOWN_GRACE_MS: "500",
  LOG_LEVEL: "error",
  CDS_LOG_PRETTY: "false",
};

/** The whole product in this process, on free ports, in a directory of its own that goes with it. */
export async function startTestStudio(
  env: Record<string, string> = {},
  options: { log?: Log } = {},
): Promise<TestStudio> {
  const dataDir = await mkdtemp(join(tmpdir(), "cds-e2e-"));
  const studio = await startStudio(readConfig({ ...TEST_ENV, CDS_DATA_DIR: dataDir, ...env }), options);
  const url = studio.urls.ui;
  const admin = await signIn(url, ADMIN.username, ADMIN.password, "login");
  return {
    studio,
    url,
    dataDir,
    admin,
    user: (username) => signIn(url, username, `password of ${username}`, "register"),
    async [Symbol.asyncDispose]() {
      await studio.close();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

export async function signIn(
  url: string,
  username: string,
  password: string,
  how: "login" | "register",
): Promise<TestUser> {
  const session = await post<Session>(`${url}/auth/${how}`, { username, password });
  const client = createClient({ baseUrl: url, token: session.access_token });
  return { username, session, client };
}

async function post<T>(url: string, body: unknown, token?: string): Promise<T> {
  const response = await fetch(url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`);
  return (await response.json()) as T;
}
