/** The package has no types of its own. */
declare module "compatcanary" {
  export function scanEndpoint(options: {
    baseUrl: string;
    model: string;
    apiKey?: string;
    profile?: "chat" | "modern";
    timeoutMs?: number;
  }): Promise<{
    score: number;
    compatible: boolean;
    results: { id: string; status: "pass" | "warn" | "fail"; summary: string }[];
  }>;
}
