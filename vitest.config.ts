import { defineConfig } from "vitest/config";

const NO_TESTS = ["node_modules/**", "**/dist/**", "data/**", ".runtime/**"];
/** What takes the whole machine: nothing else could be judged beside it. */
const ALONE = ["tests/security/crowd.test.ts"];

export default defineConfig({
  test: {
    // Real databases, sandboxes and browsers on two cores: few files at a time, generous time-outs.
    maxWorkers: 2,
    testTimeout: 120_000,
    expect: { poll: { timeout: 30_000 } },
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
    exclude: NO_TESTS,
    projects: [
      {
        extends: true,
        test: { name: "together", include: ["**/*.test.ts", "**/*.test.tsx"], exclude: ALONE },
      },
      { extends: true, test: { name: "alone", include: ALONE, sequence: { groupOrder: 1 } } },
    ],
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
        "apps/orchestrator/conformance/**",
        "apps/api/sample-project/**",
        "**/*.d.ts",
      ],
      reporter: ["text-summary", "json-summary"],
      thresholds: { lines: 85 },
    },
  },
});
