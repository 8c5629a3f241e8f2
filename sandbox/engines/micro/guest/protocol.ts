import { z } from "zod";
import { AppError } from "#schemas";

/**
 * The host's end of the guest agent's frames; agent.py beside this tells what they mean. A frame is a u32 big-endian
 * length of what follows (1 byte to 1 MiB), a u8 type and a payload. The guest counts as hostile: whatever is not
 * exactly as expected ends the connection.
 */

const FRAME = { json: 1, stdout: 2, stderr: 3, stdin: 4 } as const;
/** Length field not included. */
const MAX_FRAME_BYTES = 1024 * 1024;
/** A file's piece in base64 is the longest the agent says in JSON. */
const MAX_JSON_BYTES = 768 * 1024;
const HEADER_BYTES = 5;
export const NONCE_BYTES = 16;
const SYNC = Buffer.concat([Buffer.alloc(8), Buffer.from("CDSAGENT")]);
/** What an agent may still have said to whoever was there before, at most. */
const MAX_BEFORE_SYNC_BYTES = 4 * 1024 * 1024;
/** Of a file per `read` and `write`. */
export const FILE_PIECE_BYTES = 512 * 1024;
/** What a program may have been sent without having taken it. */
export const STDIN_WINDOW_BYTES = 256 * 1024;

const Id = z.int().min(1).max(0xffff_ffff);
const Count = z.int().min(0).max(Number.MAX_SAFE_INTEGER);

/** Everything the agent says in JSON. What is not known is dropped, for an agent of a newer image. */
const Said = z.union([
  z.object({ event: z.literal("ready"), version: z.int().min(1).max(1000) }),
  z.object({ event: z.literal("error"), error: z.string().max(1000) }),
  z.object({ event: z.literal("started"), id: Id, pid: z.int().min(0) }),
  z.object({ event: z.literal("stdin"), id: Id, bytes: Count }),
  z.object({
    event: z.literal("exit"),
    id: Id,
    code: z.int().min(0).max(255).nullable(),
    signal: z.int().min(1).max(64).nullable(),
    truncated: z.boolean().optional(),
    timed_out: z.boolean().optional(),
    limit: z.enum(["memory", "processes"]).optional(),
  }),
  z.object({ id: Id, error: z.string().max(4096), errno: z.string().max(20).nullable().optional() }),
  z.object({
    id: Id,
    ok: z.literal(true),
    found: z.boolean().optional(),
    data: z.string().optional(),
    size: Count.optional(),
    memory_bytes: Count.optional(),
    cpu_ms: Count.optional(),
    processes: Count.optional(),
    disk_bytes: Count.optional(),
    disk_limit_bytes: Count.optional(),
  }),
]);

export type Said = z.infer<typeof Said>;
export type Answer = Extract<Said, { ok: true }>;
export type Exit = Extract<Said, { event: "exit" }>;

export type Frame = { type: "json"; message: Said } | { type: "stdout" | "stderr"; id: number; data: Buffer };

/** The guest said something that no agent says; the connection is of no more use. */
export function malformed(what: string): AppError {
  return new AppError("Unavailable", `The virtual machine's agent sent ${what}.`, {
    hint: "The machine was ended. Start another one.",
  });
}

/** What begins a conversation; the agent repeats it. `nonce` is of NONCE_BYTES, never used before. */
export function syncFrame(nonce: Buffer): Buffer {
  return Buffer.concat([SYNC, nonce]);
}

export function encodeJson(message: object): Buffer {
  const payload = Buffer.from(JSON.stringify(message));
  if (payload.length >= MAX_FRAME_BYTES) {
    throw new AppError("PayloadTooLarge", "The command is too large for a virtual machine.", {
      hint: "Arguments and environment together must stay below 1 MiB; give large things as files or as input.",
    });
  }
  return Buffer.concat([header(FRAME.json, payload.length), payload]);
}

/** Input for the program of exec `id`; none of it, when `data` is empty: its end. At most MAX_FRAME_BYTES. */
export function encodeStdin(id: number, data: Buffer): Buffer {
  const head = Buffer.alloc(HEADER_BYTES + 4);
  header(FRAME.stdin, 4 + data.length).copy(head);
  head.writeUInt32BE(id, HEADER_BYTES);
  return Buffer.concat([head, data]);
}

function header(type: number, payloadBytes: number): Buffer {
  const head = Buffer.alloc(HEADER_BYTES);
  head.writeUInt32BE(1 + payloadBytes);
  head.writeUInt8(type, 4);
  return head;
}

/** Bytes in, whatever their pieces; frames out. Keeps one frame at most. Throws AppError Unavailable, see `malformed`. */
export class FrameDecoder {
  readonly #sync: Buffer;
  #synced = false;
  #skipped = 0;
  #chunks: Buffer[] = [];
  #bytes = 0;
  /** How many bytes have to be there before looking again makes sense. */
  #wanted: number;

  /** Nothing before the agent's repetition of `nonce` counts. */
  constructor(nonce: Buffer) {
    this.#sync = syncFrame(nonce);
    this.#wanted = this.#sync.length;
  }

  *push(chunk: Buffer): Generator<Frame> {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    while (this.#bytes >= this.#wanted) {
      const data = this.#chunks.length === 1 ? (this.#chunks[0] ?? chunk) : Buffer.concat(this.#chunks);
      if (!this.#synced) {
        const rest = this.#hunt(data);
        this.#keep(rest);
        if (!this.#synced) return;
        continue;
      }
      const length = data.readUInt32BE(0);
      if (length < 1 || length > MAX_FRAME_BYTES) throw malformed(`a frame of ${length} bytes`);
      if (data.length < 4 + length) {
        this.#keep(data);
        this.#wanted = 4 + length;
        return;
      }
      const frame = decode(data.readUInt8(4), data.subarray(HEADER_BYTES, 4 + length));
      this.#keep(data.subarray(4 + length));
      this.#wanted = HEADER_BYTES;
      yield frame;
    }
  }

  #hunt(data: Buffer): Buffer {
    const at = data.indexOf(this.#sync);
    const end = at < 0 ? Math.max(0, data.length - this.#sync.length + 1) : at;
    this.#skipped += end;
    if (this.#skipped > MAX_BEFORE_SYNC_BYTES) throw malformed("much, but no answer");
    if (at < 0) return data.subarray(end);
    this.#synced = true;
    this.#wanted = HEADER_BYTES;
    return data.subarray(at + this.#sync.length);
  }

  #keep(data: Buffer): void {
    this.#chunks = data.length === 0 ? [] : [data];
    this.#bytes = data.length;
  }
}

function decode(type: number, payload: Buffer): Frame {
  if (type === FRAME.stdout || type === FRAME.stderr) {
    if (payload.length < 4) throw malformed("output without an owner");
    const name = type === FRAME.stdout ? "stdout" : "stderr";
    return { type: name, id: payload.readUInt32BE(0), data: payload.subarray(4) };
  }
  if (type !== FRAME.json) throw malformed(`a frame of type ${type}`);
  if (payload.length > MAX_JSON_BYTES) throw malformed("a message that is too long");
  let message: unknown;
  try {
    message = JSON.parse(payload.toString("utf8"));
  } catch {
    throw malformed("a message that is no JSON");
  }
  const said = Said.safeParse(message);
  if (!said.success) throw malformed("a message that makes no sense");
  return { type: "json", message: said.data };
}
