import { ConfigError, readConfig } from "#platform";
import { AppError } from "#schemas";
import { printStarted, say } from "./banner.ts";
import { startStudio } from "./studio.ts";

const HELP = `Starts the studio: every service in this process, on loopback.

  npm start                      start it; Ctrl+C stops it
  npm start -- --help            this text
  npm run doctor                 what works on this machine, and how to mend what does not

Everything is set by environment variables, see docs/configuration.md.`;

async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    say(HELP);
    return 0;
  }
  if (args.length > 0) {
    say(`Unknown option "${args[0]}".\n\n${HELP}`);
    return 2;
  }
  const stopped = new Promise<NodeJS.Signals>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => resolve(signal));
  });
  const studio = await startStudio(readConfig());
  printStarted(studio);
  await stopped;
  say("stopping ...");
  const stuck = await studio.close();
  if (stuck.length > 0) say(`did not close in time: ${stuck.join(", ")}`);
  return stuck.length > 0 ? 1 : 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.exitCode = 1;
  if (error instanceof AppError)
    say(`${error.message}${error.details.hint === undefined ? "" : `\n${error.details.hint}`}`);
  else if (error instanceof ConfigError) say(error.message);
  else if (error instanceof Error && "code" in error && error.code === "EADDRINUSE") {
    say(
      `${error.message}\nAnother program (or studio) uses that port: stop it, or choose others (docs/configuration.md).`,
    );
  } else throw error;
}
// A handle somebody forgot must not keep a stopped studio alive.
setTimeout(() => process.exit(), 3000).unref();
