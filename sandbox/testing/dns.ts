import { createSocket, type RemoteInfo } from "node:dgram";

/** RFC 1035, section 3.2.2, and RFC 3596. */
const TYPE_A = 1;
const TYPE_AAAA = 28;
const NO_SUCH_NAME = 3;

export interface DnsServer extends AsyncDisposable {
  /** As `setServers` wants it. */
  readonly address: string;
  /** Names asked for, once per question. */
  readonly asked: string[];
}

/** The name of a query's one question, and where the question ends. */
function readQuestion(query: Buffer): { name: string; type: number; end: number } {
  const labels: string[] = [];
  let at = 12;
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.toString("latin1", at + 1, at + 1 + length));
    at += 1 + length;
  }
  return { name: labels.join(".").toLowerCase(), type: query.readUInt16BE(at + 1), end: at + 5 };
}

function addressBytes(address: string): Buffer {
  if (address.includes(".")) return Buffer.from(address.split(".").map(Number));
  const [left = "", right = ""] = address.split("::");
  const words = (part: string) =>
    part === "" ? [] : part.split(":").map((word) => Number.parseInt(word, 16));
  const [start, end] = [words(left), words(right)];
  const all = [...start, ...Array.from({ length: 8 - start.length - end.length }, () => 0), ...end];
  return Buffer.from(all.flatMap((word) => [word >> 8, word & 255]));
}

/**
 * A name server on this machine whose answers are the test's: `answer` is told the name and how often it was asked
 * for the same kind of address, and gives addresses of both kinds; undefined for a name that does not exist, null to
 * say nothing at all.
 */
export async function startDns(
  answer: (name: string, time: number) => string[] | null | undefined,
): Promise<DnsServer> {
  const socket = createSocket("udp4");
  const asked: string[] = [];
  const times = new Map<string, number>();
  socket.on("message", (query: Buffer, from: RemoteInfo) => {
    const { name, type, end } = readQuestion(query);
    const key = `${type} ${name}`;
    const time = times.get(key) ?? 0;
    times.set(key, time + 1);
    asked.push(name);
    const addresses = answer(name, time);
    if (addresses === null) return;
    const family = type === TYPE_A ? "." : type === TYPE_AAAA ? ":" : "none";
    const records = (addresses ?? []).filter((each) => each.includes(family)).map(addressBytes);
    const header = Buffer.from(query.subarray(0, 12));
    header.writeUInt16BE(0x8180 | (addresses === undefined ? NO_SUCH_NAME : 0), 2);
    header.writeUInt16BE(records.length, 6);
    header.writeUInt32BE(0, 8);
    const answers = records.flatMap((bytes) => {
      // A pointer to the question's name, its type, class IN, no time to live.
      const head = Buffer.from([0xc0, 12, 0, type, 0, 1, 0, 0, 0, 0, 0, bytes.length]);
      return [head, bytes];
    });
    socket.send(Buffer.concat([header, query.subarray(12, end), ...answers]), from.port, from.address);
  });
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${socket.address().port}`,
    asked,
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => socket.close(() => resolve())),
  };
}
