import { type Attempt, PROGRESS_BYTES } from "./attempts.ts";
import { downloadFailed, TransientFailure } from "./failures.ts";
import { discard, type HubAnswer, type HubHttp, refused } from "./hub-http.ts";
import type { PartFile } from "./part-file.ts";
import type { RemoteFile } from "./repository.ts";

export interface TransferOptions {
  http: HubHttp;
  file: RemoteFile;
  part: PartFile;
  /** So many bytes came and are written. */
  onBytes: (received: number) => void;
}

/** Fetches what a part still lacks, one request per attempt. */
export class Transfer {
  readonly #options: TransferOptions;
  /** The furthest one has come: arriving there again is no progress. */
  #furthest: number;

  constructor(options: TransferOptions) {
    this.#options = options;
    this.#furthest = options.part.bytes;
  }

  /**
   * One request for everything from the part's end on.
   * @throws TransientFailure and what the network throws when it ends early; AppError DownloadFailed when the answer
   * is not a piece of that file.
   */
  async attempt(attempt: Attempt): Promise<void> {
    const { http, file, part } = this.#options;
    if (part.bytes === file.size) return;
    const answer = await http.send({
      method: "GET",
      url: file.url,
      headers: { range: `bytes=${part.bytes}-` },
      signal: attempt.signal,
    });
    try {
      if (answer.status === 416 && part.bytes > 0) {
        // Whoever answers knows a shorter file under that name: from the beginning it may be the right one.
        await part.restart();
        throw new TransientFailure(downloadFailed("The model hub has less of that file than it had."));
      }
      if (answer.status !== 200 && answer.status !== 206) throw refused(answer);
      checkKind(answer, file);
      if (answer.status === 206) checkRange(answer.headers["content-range"], part.bytes, file.size);
      else await this.#fromTheBeginning(answer);
      await this.#take(answer, attempt);
    } finally {
      discard(answer.body);
    }
    if (part.bytes < file.size) {
      throw new TransientFailure(
        downloadFailed(
          "The download ends early, again and again.",
          "What has arrived is kept: try again later.",
        ),
      );
    }
  }

  /** Status 200: the range was ignored, all of the file comes. */
  async #fromTheBeginning({ headers }: HubAnswer): Promise<void> {
    const { part, file } = this.#options;
    const length = Number(headers["content-length"] ?? file.size);
    if (length > file.size) throw tooLong();
    if (part.bytes > 0) await part.restart();
  }

  async #take({ body }: HubAnswer, attempt: Attempt): Promise<void> {
    const { part, file, onBytes } = this.#options;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      attempt.arrived(chunk.length);
      if (part.bytes + chunk.length > file.size) {
        await part.remove();
        throw tooLong();
      }
      await part.append(chunk);
      if (part.bytes >= this.#furthest + PROGRESS_BYTES) {
        this.#furthest = part.bytes;
        attempt.progressed = true;
      }
      onBytes(chunk.length);
    }
  }
}

/** Refuses what is not the file at all, before anything of the part is given up for it. */
function checkKind({ headers, linkedOid }: HubAnswer, { oid }: RemoteFile): void {
  if (/^(text\/html|application\/xhtml)/i.test(String(headers["content-type"] ?? ""))) {
    throw downloadFailed(
      "A web page came instead of the file: a sign-in page, perhaps.",
      "Check this server's way to the internet, HF_ENDPOINT and HF_TOKEN.",
    );
  }
  if (!/^(identity)?$/i.test(String(headers["content-encoding"] ?? ""))) {
    throw downloadFailed("The file comes encoded, though it was asked for as it is.");
  }
  if (linkedOid !== undefined && linkedOid !== oid) {
    throw downloadFailed("The file has changed on the hub in the meantime.", "Start the download again.");
  }
}

/** A piece must begin where the part ends, and be one of a file of the same size. */
function checkRange(header: unknown, from: number, size: number): void {
  const [, first, last, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(String(header ?? "")) ?? [];
  const fits =
    Number(first) === from &&
    Number(last) < size &&
    Number(last) >= from &&
    (total === "*" || Number(total) === size);
  if (!fits) {
    throw downloadFailed("The model hub answered with another piece of the file than was asked for.");
  }
}

function tooLong() {
  return downloadFailed("More came than the file has bytes.", "The hub's own answers contradict each other.");
}
