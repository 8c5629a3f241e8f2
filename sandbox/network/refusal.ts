import type { RefusalReason } from "./limits.ts";
import { describeRule } from "./rules.ts";

/** HTTP status, and what the program inside is told. */
const ANSWERS: Record<RefusalReason, [status: number, text: string]> = {
  malformed: [
    400,
    "This is a proxy: it takes `CONNECT host:port` and `GET http://host/path`, in strict HTTP/1.1.",
  ],
  host: [
    403,
    "This host is not among those the run may reach. Ask for it in the run's list of hosts; the operator's list (CDS_SANDBOX_HOSTS) has to allow it too.",
  ],
  address: [403, "The host's name leads to an address that sandboxes may not reach."],
  requests: [429, "The run has made too many requests within a minute. Wait, then try again."],
  connections: [503, "The run has too many connections open."],
  bytes: [403, "The run has used up the bytes it may send or receive."],
  unresolved: [502, "The host's name could not be resolved."],
  unreachable: [502, "The host could not be reached, or broke off."],
  timeout: [504, "The host did not answer in time."],
};

/** Thrown where a request ends without being served. */
export class Refusal extends Error {
  readonly reason: RefusalReason;
  readonly host: string;
  readonly port: number;

  constructor(reason: RefusalReason, host = "", port = 0) {
    super(`network refused: ${reason}`);
    this.name = "Refusal";
    this.reason = reason;
    this.host = host;
    this.port = port;
  }

  get status(): number {
    return ANSWERS[this.reason][0];
  }

  /** One line for the program inside: nothing but what it said itself. */
  get text(): string {
    const where =
      this.host === "" ? "" : `${describeRule({ host: this.host, below: false, ports: [this.port] })}: `;
    return `${where}${ANSWERS[this.reason][1]}\n`;
  }
}

/** Thrown where nobody waits for an answer any more: nothing was refused. */
export class Gone extends Error {
  constructor() {
    super("whoever asked has gone");
    this.name = "Gone";
  }
}
