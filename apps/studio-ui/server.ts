import fastifyStatic from "@fastify/static";
import type { FastifyInstance } from "fastify";
import { DIST } from "./build.ts";

/**
 * Nothing from elsewhere, no inline script: what a model writes into the page cannot run or call home. It holds in
 * previews too, which is what `data:` is for.
 */
const CONTENT_SECURITY_POLICY = [
  "default-src 'self'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self' data:",
  "media-src 'self' data:",
  "connect-src 'self'",
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join("; ");

/** Serve the built page: hashed files for ever, the page itself checked each time. */
export async function registerUi(app: FastifyInstance): Promise<void> {
  await app.register(fastifyStatic, {
    root: DIST,
    preCompressed: true,
    index: ["index.html"],
    dotfiles: "ignore",
    cacheControl: false,
    setHeaders(reply, path) {
      const hashed = path.includes("/assets/");
      reply.header("cache-control", hashed ? "public, max-age=31536000, immutable" : "no-cache");
      if (/\.html(\.br)?$/.test(path)) reply.header("content-security-policy", CONTENT_SECURITY_POLICY);
    },
  });
}
