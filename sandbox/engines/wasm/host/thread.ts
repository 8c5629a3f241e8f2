/**
 * Start of a thread: what the first one compiled, the next ones find, types stripped, in the host's own `/tmp`. That
 * takes two thirds off their start.
 */
import { enableCompileCache, flushCompileCache } from "node:module";

enableCompileCache("/tmp/compile-cache");
await import("./module-thread.ts");
flushCompileCache();
