import { describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { errorCode, ignoring, toJailError } from "./descriptors.ts";

const failure = (code: string) => Object.assign(new Error(code), { code });

describe("errors of the file system", () => {
  it.each([
    ["ENOENT", "NotFound"],
    ["ELOOP", "Forbidden"],
    ["ENOTDIR", "Conflict"],
    ["EISDIR", "Conflict"],
    ["EEXIST", "Conflict"],
    ["ENOTEMPTY", "Conflict"],
    ["EACCES", "Forbidden"],
    ["EPERM", "Forbidden"],
    ["ENXIO", "Forbidden"],
    ["EROFS", "Forbidden"],
    ["EAGAIN", "Conflict"],
    ["ENOSPC", "QuotaExceeded"],
    ["EDQUOT", "QuotaExceeded"],
  ])("%s is told as %s", (code, told) => {
    expect(toJailError(failure(code), "a/b")).toMatchObject({ code: told });
  });

  it("what is not known stays what it was", () => {
    for (const error of [failure("EIO"), new AppError("PayloadTooLarge", "x"), "text", undefined]) {
      expect(toJailError(error, "a")).toBe(error);
    }
    expect(errorCode("text")).toBeUndefined();
    expect(errorCode(new Error("no code"))).toBeUndefined();
  });

  it("only those named are swallowed", () => {
    expect(ignoring("ENOENT", "EEXIST")(failure("EEXIST"))).toBeUndefined();
    expect(() => ignoring("ENOENT")(failure("EEXIST"))).toThrow("EEXIST");
    expect(() => ignoring("ENOENT")(new Error("other"))).toThrow("other");
  });
});
