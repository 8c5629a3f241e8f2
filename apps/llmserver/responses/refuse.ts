import type { z } from "zod";
import { issuesOf } from "#platform/http/bodies.ts";
import { AppError } from "#schemas";
import { ApiError } from "../api-error.ts";

/** 400 in OpenAI's words for what cannot be served here; `hint`: what to do instead. */
export function unsupported(param: string, hint: string): ApiError {
  return new ApiError(400, `Unsupported parameter: '${param}' is not supported here. ${hint}`, {
    param,
    code: "unsupported_parameter",
  });
}

/** 400 for a value that is wrong where it stands. */
export function invalid(path: string, message: string): AppError {
  return new AppError("InvalidParams", `${path}: ${message}`, { issues: [{ path, message }] });
}

/**
 * A part of a body, checked on its own.
 * @param at where it stands in the whole, as in `input[3]`.
 * @throws AppError InvalidParams with paths that begin there.
 */
export function parseAt<T extends z.ZodType>(schema: T, value: unknown, at: string): z.output<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issues = issuesOf(parsed.error).map(({ path, message }) => ({
    path: path === "" || path.startsWith("[") ? `${at}${path}` : `${at}.${path}`,
    message,
  }));
  const [first] = issues;
  throw new AppError("InvalidParams", `${first?.path ?? at}: ${first?.message ?? "is not valid"}`, {
    issues,
  });
}
