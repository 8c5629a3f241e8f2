import { PassThrough } from "node:stream";
import fc from "fast-check";
import { expect, it } from "vitest";
import { Qmp } from "./qmp.ts";

const GREETING = '{"QMP":{"version":{},"capabilities":[]}}\n';
const LONG_MS = 20_000;

/** A monitor made by hand: answers every command by `answer`. */
function monitor(answer: (command: { execute: string; id: number }) => string | undefined) {
  const input = new PassThrough();
  const output = new PassThrough();
  output.on("data", (chunk: Buffer) => {
    for (const line of String(chunk).trim().split("\n")) {
      const text = answer(JSON.parse(line));
      if (text !== undefined) input.write(text);
    }
  });
  input.write(GREETING);
  return { input, output };
}

const polite = ({ id }: { id: number }) => `{"return":{"id":${id}},"id":${id}}\r\n`;

it("negotiates, answers commands and tells events", async () => {
  const { input, output } = monitor(polite);
  const qmp = await Qmp.open(input, output, LONG_MS);
  const event = qmp.event("MIGRATION", ({ status }) => status === "completed", LONG_MS);
  input.write('{"event":"MIGRATION","data":{"status":"active"}}\n{"event":"OTHER"}\n');
  input.write('{"event":"MIGRATION","data":{"status":"completed"}}\n');
  expect(await event).toEqual({ status: "completed" });
  expect(await qmp.command("query-status", {}, LONG_MS)).toEqual({ id: 2 });
  qmp.close();
  await expect(qmp.command("stop", {}, LONG_MS)).rejects.toMatchObject({ code: "Unavailable" });
});

it("tells a refusal as an error with the monitor's words, and goes on", async () => {
  const { input, output } = monitor((command) =>
    command.execute === "bad"
      ? `{"error":{"class":"GenericError","desc":"${"no".repeat(1000)}"},"id":${command.id}}\n`
      : polite(command),
  );
  const qmp = await Qmp.open(input, output, LONG_MS);
  const failure = qmp.command("bad", {}, LONG_MS);
  await expect(failure).rejects.toMatchObject({ code: "Unavailable" });
  await expect(failure).rejects.toSatisfy((error: Error) => error.message.length < 400);
  expect(await qmp.command("stop", {}, LONG_MS)).toEqual({ id: 3 });
  qmp.close();
});

it("closes at silence, and fails everything that waits", async () => {
  const { input, output } = monitor(({ id }) => (id === 1 ? polite({ id }) : undefined));
  const qmp = await Qmp.open(input, output, LONG_MS);
  const other = qmp.event("SHUTDOWN", () => true, LONG_MS);
  other.catch(() => undefined);
  await expect(qmp.command("stop", {}, 20)).rejects.toMatchObject({ code: "Timeout" });
  await expect(other).rejects.toMatchObject({ code: "Timeout" });
  expect(await qmp.closed).toMatchObject({ code: "Timeout" });
  expect(input.destroyed).toBe(true);
});

it("waits for a greeting no longer than told", async () => {
  await expect(Qmp.open(new PassThrough(), new PassThrough(), 20)).rejects.toMatchObject({ code: "Timeout" });
});

it.each([
  ["a line without an end", "x".repeat(300_000)],
  ["no JSON", "{]\n"],
  ["no object", "[1]\n"],
  ["an answer nobody asked for", '{"return":{},"id":99}\n'],
  ["a flood of events", '{"event":"X"}\n'.repeat(10_001)],
])("[SB-micro] closes at %s", async (_name, garbage) => {
  const { input, output } = monitor(polite);
  const qmp = await Qmp.open(input, output, LONG_MS);
  input.write(garbage);
  expect(await qmp.closed).toMatchObject({ code: "Unavailable" });
});

it("[SB-micro] whatever arrives in whatever pieces, it answers, refuses or closes", async () => {
  const line = fc.oneof(
    fc.json(),
    fc.string(),
    fc.constant('{"event":"MIGRATION","data":null}'),
    fc.constant('{"return":1,"id":2}'),
    fc.constant('{"error":null,"id":2}'),
    fc.uint8Array().map((bytes) => Buffer.from(bytes).toString("latin1")),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(line, { maxLength: 8 }),
      fc.integer({ min: 1, max: 40 }),
      async (lines, size) => {
        const { input, output } = monitor(({ id }) => (id === 1 ? polite({ id }) : undefined));
        const qmp = await Qmp.open(input, output, LONG_MS);
        const outcome = qmp.command("query-status", {}, LONG_MS).then(
          () => "answered",
          (error: { code: string }) => error.code,
        );
        const bytes = Buffer.from(`${lines.join("\n")}\n`);
        for (let at = 0; at < bytes.length; at += size) {
          if (!input.destroyed) input.write(bytes.subarray(at, at + size));
        }
        if (!input.destroyed) input.end();
        expect(["answered", "Unavailable"]).toContain(await outcome);
        expect(await qmp.closed).toMatchObject({ code: "Unavailable" });
      },
    ),
    { numRuns: 200 },
  );
});
