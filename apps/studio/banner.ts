import type { Studio } from "./studio.ts";

/** To the person who started it: standard output, so that it can be piped apart from the log. */
export function say(text: string): void {
  console.log(text);
}

export function printStarted(studio: Studio): void {
  say(`\n  CyberDevStudio  ${studio.urls.ui}\n`);
  if (studio.admin?.password !== undefined) {
    say(
      `  sign in as      ${studio.admin.username}\n  password        ${studio.admin.password}   (shown only this once)\n`,
    );
  } else if (studio.admin !== undefined) {
    say(`  sign in as      ${studio.admin.username}, with the password you set\n`);
  }
  say(`  api ${studio.urls.api}   auth ${studio.urls.auth}   models ${studio.urls.llm}`);
  say(
    `  data            ${studio.dataDir}${studio.dataDirMoved ? "   (the default lies below a directory only root may enter)" : ""}`,
  );
  for (const problem of studio.problems) say(`  note            ${problem}`);
  say("  Ctrl+C stops it\n");
}
