import type { Sandboxes } from "../sandboxes.ts";
import type { Slot } from "../slots.ts";
import type { SandboxTerminal, TerminalSpec } from "../types.ts";
import { LIMITS, until } from "./harness.ts";

export const SIZE = { cols: 90, rows: 30 };

/** A terminal, and what has appeared on it. */
export interface Screen {
  readonly terminal: SandboxTerminal;
  readonly slot: Slot;
  /** Everything so far. */
  text(): string;
  /** Type, and answer what appeared since, once `shows` is in it. */
  type(keys: string, shows: string | RegExp): Promise<string>;
  /** End it, and give its slot back. */
  close(): Promise<void>;
}

/** A terminal in a slot of its own; `paused`: with nobody reading. */
export async function openScreen(
  sandboxes: Sandboxes,
  more: Partial<TerminalSpec> & { paused?: boolean } = {},
): Promise<Screen> {
  const { paused = false, ...spec } = more;
  const slot = spec.slot ?? (await sandboxes.slots.acquire());
  const terminal = await sandboxes.run.startTerminal({
    ...{ name: "test", env: { PS1: "ready> " }, cwd: "/", mounts: [], limits: LIMITS, size: SIZE, slot },
    ...spec,
  });
  let raw = "";
  // Without the marks a shell puts around what is typed, for pastes.
  const shown = () => raw.replaceAll("\u001b[?2004h", "").replaceAll("\u001b[?2004l\r", "");
  if (!paused) {
    terminal.output.setEncoding("utf8");
    terminal.output.on("data", (text: string) => {
      raw += text;
    });
  }
  return {
    terminal,
    slot,
    text: shown,
    async type(keys, shows) {
      const from = shown().length;
      terminal.write(keys);
      return until(() => {
        const since = shown().slice(from);
        return (typeof shows === "string" ? since.includes(shows) : shows.test(since)) && since;
      }).catch(() => {
        throw new Error(`${shows} did not appear: ${JSON.stringify(shown().slice(from))}`);
      });
    },
    close: () => slot.release(),
  };
}
