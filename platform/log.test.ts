import { describe, expect, it } from "vitest";
import { createLogger } from "./log.ts";

function capture() {
  const lines: string[] = [];
  const log = createLogger({ level: "info", pretty: false }, { write: (line) => void lines.push(line) });
  return { lines, log };
}

describe("log", () => {
  it("strikes out secrets by field name, down to three levels, also in children", () => {
    const { lines, log } = capture();
    log.info(
      { api_key: "S3CRET", a: { password: "S3CRET", b: { refresh_token: "S3CRET" } }, user: "ada" },
      "m",
    );
    log.child({ headers: { authorization: "S3CRET" } }).info("m");
    expect(lines.join("")).not.toContain("S3CRET");
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({ msg: "m", user: "ada", api_key: "[redacted]" });
  });

  it("writes JSON with a time a person can read and keeps quiet below its level", () => {
    const { lines, log } = capture();
    log.debug("no");
    log.error({ err: new Error("boom") }, "yes");
    expect(lines).toHaveLength(1);
    const line = JSON.parse(lines[0] ?? "");
    expect(line.time).toMatch(/^\d{4}-\d\d-\d\dT/);
    expect(line.err).toMatchObject({ type: "Error", message: "boom" });
  });

  it("can write for people", () => {
    expect(createLogger({ level: "silent", pretty: true }).level).toBe("silent");
    expect(createLogger({ level: "silent", pretty: false }).level).toBe("silent");
  });
});
