import { AppError } from "#schemas";
import type { SandboxHost } from "../../sandboxes.ts";
import type { SandboxLog } from "../../types.ts";
import { HostProcess } from "./host-process.ts";
import { WASM_LIMITS } from "./limits.ts";

export interface DomainsOptions {
  host: SandboxHost;
  log: SandboxLog;
  idleMs: number;
  /** Keep a host ready that has seen nobody's data, once one was needed. */
  spare: boolean;
}

/** One trust domain: its process, and what its modules have reserved. */
export interface Domain {
  readonly name: string;
  process: Promise<HostProcess>;
  instances: number;
  memoryBytes: number;
  idle: NodeJS.Timeout | undefined;
}

/** Which domain has which process, and how much is used there. */
export class Domains {
  readonly #options: DomainsOptions;
  readonly #domains = new Map<string, Domain>();
  readonly #starting = new Set<Promise<HostProcess>>();
  #spare: Promise<HostProcess> | undefined;
  #spareIdle: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: DomainsOptions) {
    this.#options = options;
  }

  /** Processes there are, the spare one included. */
  get processes(): number {
    return this.#domains.size + (this.#spare === undefined ? 0 : 1);
  }

  /** Room for one more module in a domain. Throws AppError QuotaExceeded. */
  enter(name: string, memoryBytes: number): Domain {
    if (this.#closed) throw new AppError("Unavailable", "The sandbox is shutting down.");
    const domain = this.#domains.get(name) ?? this.#open(name);
    if (domain.instances >= WASM_LIMITS.instancesPerDomain) {
      throw new AppError("QuotaExceeded", `${domain.instances} modules are open; no more can be at once.`, {
        hint: "Close one of them.",
      });
    }
    this.reserve(domain, memoryBytes);
    domain.instances += 1;
    clearTimeout(domain.idle);
    return domain;
  }

  /** Take so much more memory (or give it back). Throws AppError QuotaExceeded. */
  reserve(domain: Domain, memoryBytes: number): void {
    const left = WASM_LIMITS.domainMemoryBytes - domain.memoryBytes;
    if (memoryBytes > left) {
      throw new AppError("QuotaExceeded", `${memoryBytes} bytes of memory are asked for; ${left} are left.`, {
        left,
        hint: "Close a module, or give one a lower limit.",
      });
    }
    domain.memoryBytes += memoryBytes;
  }

  /** Undo `enter`. A domain without modules is forgotten after a while. */
  leave(domain: Domain, memoryBytes: number): void {
    domain.instances -= 1;
    domain.memoryBytes -= memoryBytes;
    if (domain.instances > 0 || this.#closed) return;
    domain.idle = setTimeout(() => this.#forget(domain), this.#options.idleMs).unref();
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#spareIdle);
    const processes = [...this.#domains.values()].map((domain) => {
      clearTimeout(domain.idle);
      return domain.process;
    });
    this.#domains.clear();
    await Promise.all([...processes, ...this.#starting].map(end));
  }

  #open(name: string): Domain {
    const domain: Domain = { name, process: this.#take(), instances: 0, memoryBytes: 0, idle: undefined };
    this.#domains.set(name, domain);
    const forget = () => {
      if (this.#domains.get(name) === domain) this.#domains.delete(name);
    };
    domain.process.then(({ gone }) => gone.then(forget), forget);
    return domain;
  }

  #take(): Promise<HostProcess> {
    const taken = this.#spare ?? this.#start();
    this.#spare = undefined;
    clearTimeout(this.#spareIdle);
    // After this one has started, which wants the processor first.
    if (this.#options.spare) taken.then(() => this.#prepare()).catch(() => undefined);
    return taken;
  }

  #start(): Promise<HostProcess> {
    const { host, log } = this.#options;
    const started = HostProcess.start(host, log);
    this.#starting.add(started);
    const remove = () => this.#starting.delete(started);
    started.then(({ gone }) => gone.then(remove), remove);
    return started;
  }

  #prepare(): void {
    if (this.#closed || this.#spare !== undefined) return;
    const spare = this.#start();
    this.#spare = spare;
    const drop = () => {
      if (this.#spare === spare) this.#spare = undefined;
    };
    spare.then(({ gone }) => gone.then(drop), drop);
    this.#spareIdle = setTimeout(() => {
      drop();
      void end(spare);
    }, this.#options.idleMs).unref();
  }

  #forget(domain: Domain): void {
    if (this.#domains.get(domain.name) === domain) this.#domains.delete(domain.name);
    void end(domain.process);
  }
}

/** End a host that may not have started; the log has what failed. */
async function end(starting: Promise<HostProcess>): Promise<void> {
  await starting.then((process) => process.kill()).catch(() => undefined);
}
