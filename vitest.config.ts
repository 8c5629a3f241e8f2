import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    // Real databases, sandboxes and browsers on two cores: few files at a time, generous time-outs.
    maxWorkers: 2,
    testTimeout: 120_000,
    expect: { poll: { timeout: 30_000 } },
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
    include: ["**/*.test.ts", "**/*.test.tsx"],
    exclude: ["node_modules/**", "**/dist/**", "data/**", ".runtime/**"],
    reporters: ["default", "./tests/support/closing-line-reporter.ts"],
    coverage: {
      provider: "v8",
      include: ["{apps,agents,database,platform,sandbox,schemas,workspaces}/**/*.ts"],
      exclude: [
        "**/*.test.ts",
        "**/*.test.tsx",
        "**/dist/**",
        "apps/studio-ui/src/**",
        "**/testing/**",
        "sandbox/conformance/**",
        "apps/api/sample-project/**",
        "**/*.d.ts",
      ],
      reporter: ["text-summary", "json-summary"],
      thresholds: { lines: 85 },
    },
  },
});
