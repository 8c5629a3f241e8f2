import type { Database } from "#database";
import type { Caller } from "#platform/authenticate.ts";
import type { Config } from "#platform/config/config.ts";
import { requireRole } from "#platform/http/index.ts";
import type { Log } from "#platform/log.ts";
import type { Secrets } from "#platform/secrets.ts";
import { type Access, AppError, type MethodName, methods, toAppError } from "#schemas";
import { buildOpenRpc } from "#schemas/rpc/openrpc.ts";
import type { Connection, Context, Handlers } from "../handler.ts";
import type { Workbench } from "../workbench/workbench.ts";
import { checkText, invalidParams } from "./issues.ts";
import {
  type BadRequest,
  errorText,
  parseMessage,
  type RpcRequest,
  readRequest,
  resultText,
} from "./message.ts";
import { nearest } from "./suggest.ts";

/** How many calls of one batch run at the same time: a batch must not take the whole pool. */
const BATCH_CONCURRENCY = 4;
/** All answers of one batch together may be this many times as long as a request; the calls beyond are refused. */
const BATCH_ANSWER_FACTOR = 4;

/** Who speaks, over what: one per HTTP request or WebSocket message. */
export interface Session {
  /** @throws AppError Unauthenticated */
  caller(): Promise<Caller>;
  /** Takes one call's worth of the rate limit. @throws AppError RateLimited */
  admit(): void;
  /** Aborted when the caller has gone. */
  readonly signal: AbortSignal;
  readonly log: Log;
  readonly connection?: Connection;
  /** This call will take as long as it likes: others need not wait for it. */
  lasting?(): void;
}

/** What to send back. */
export interface Answer {
  /** Undefined when there is nothing to send: only notifications came. */
  readonly text: string | undefined;
  /** The failure of a message that has a single answer. */
  readonly error?: AppError;
}

export interface EngineDeps {
  readonly handlers: Handlers;
  readonly database: Database;
  readonly config: Config;
  readonly secrets: Secrets;
  readonly workbench: Workbench;
  /** ms until a call that does not end is answered with Timeout; 60 s when left out. */
  readonly callTimeoutMs?: number;
}

interface Outcome {
  readonly text: string;
  readonly error?: AppError;
}

type UntypedHandler = (context: Context, params: unknown) => Promise<unknown>;

/** JSON-RPC 2.0 by its specification, whatever the transport; every failure is an answer, never a throw. */
export class RpcEngine {
  readonly #deps: EngineDeps;
  readonly #names: readonly string[] = [...Object.keys(methods), "rpc.discover"];
  #discovery: unknown;

  constructor(deps: EngineDeps) {
    this.#deps = deps;
  }

  /** Handle one message: a request, a notification, or a batch of them. */
  async handle(bytes: Uint8Array, session: Session): Promise<Answer> {
    let message: unknown;
    try {
      message = parseMessage(bytes);
    } catch (error) {
      return failure(toAppError(error));
    }
    if (Array.isArray(message)) return await this.#batch(message, session);
    return (await this.#one(message, session)) ?? { text: undefined };
  }

  async #batch(messages: unknown[], session: Session): Promise<Answer> {
    const limit = this.#deps.config.limits.batch;
    if (messages.length === 0)
      return failure(new AppError("InvalidRequest", "A batch holds at least one request."));
    if (messages.length > limit) {
      const hint = `At most ${limit} requests fit into one batch.`;
      return failure(
        new AppError("InvalidRequest", `The batch holds ${messages.length} requests.`, { hint }),
      );
    }
    const maxChars = this.#deps.config.limits.bodyBytes * BATCH_ANSWER_FACTOR;
    const answers: (string | undefined)[] = new Array(messages.length).fill(undefined);
    let next = 0;
    let chars = 0;
    const worker = async (): Promise<void> => {
      while (next < messages.length) {
        const index = next;
        next += 1;
        const text = (await this.#one(messages[index], session, chars > maxChars))?.text;
        answers[index] = text;
        chars += text?.length ?? 0;
      }
    };
    await Promise.all(Array.from({ length: Math.min(BATCH_CONCURRENCY, messages.length) }, worker));
    const texts = answers.filter((text) => text !== undefined);
    return { text: texts.length === 0 ? undefined : `[${texts.join(",")}]` };
  }

  /** Undefined for a notification. */
  async #one(message: unknown, session: Session, full = false): Promise<Outcome | undefined> {
    const request: RpcRequest | BadRequest = readRequest(message);
    if ("error" in request) return { text: errorText(request.id, request.error), error: request.error };
    try {
      if (full)
        throw new AppError("PayloadTooLarge", "The batch's answer is too large.", {
          hint: "Send this call by itself.",
        });
      const result = await this.#call(request, session);
      return request.id === undefined ? undefined : { text: resultText(request.id, result) };
    } catch (thrown) {
      const error = toAppError(thrown);
      return request.id === undefined ? undefined : { text: errorText(request.id, error), error };
    }
  }

  async #call(request: RpcRequest, session: Session): Promise<unknown> {
    const started = performance.now();
    // GW-1 routes by path (`agent/dispatch`, `sandbox/run.exec`); the dot is the same method.
    const dotted = request.method.replaceAll("/", ".");
    const name = isMethod(dotted) ? dotted : dotted.replace(/^sandbox\./, "");
    try {
      session.admit();
      const result = await this.#dispatch(name, request, session);
      session.log.info({ method: name, ms: since(started) }, "rpc");
      return result;
    } catch (thrown) {
      const error = toAppError(thrown);
      const fields = { method: name.slice(0, 64), code: error.code, ms: since(started) };
      // What was not thrown on purpose is ours to mend: its cause goes to the log, never to the caller.
      if (error.code === "InternalError") session.log.error({ ...fields, err: error.cause ?? error }, "rpc");
      else session.log.info(fields, "rpc");
      throw error;
    }
  }

  async #dispatch(name: string, request: RpcRequest, session: Session): Promise<unknown> {
    if (name === "rpc.discover") {
      this.#discovery ??= buildOpenRpc();
      return this.#discovery;
    }
    if (!isMethod(name)) {
      const meant = nearest(name, this.#names);
      const hint = meant === undefined ? "rpc.discover lists every method." : `Did you mean "${meant}"?`;
      throw new AppError("MethodNotFound", `There is no method "${request.method.slice(0, 100)}".`, { hint });
    }
    const spec = methods[name];
    const caller = spec.access === "public" ? undefined : await authorise(session, spec.access);
    if (spec.streaming === true && session.connection === undefined) {
      throw new AppError("InvalidRequest", `${name} works over WebSocket only.`, { hint: "Connect to /ws." });
    }
    const params = this.#params(name, request.params);
    const handler = this.#deps.handlers[name] as UntypedHandler;
    const log = session.log.child({ method: name });
    const work = (signal: AbortSignal) => handler(this.#context(session, caller, log, signal), params);
    if (spec.lasting === true) session.lasting?.();
    const result = await (spec.lasting === true
      ? work(session.signal)
      : this.#withDeadline(session.signal, work));
    if (!this.#deps.config.production) {
      const checked = spec.result.safeParse(result);
      if (!checked.success)
        log.error({ issues: checked.error.issues }, "a result is not what its schema says");
    }
    return result;
  }

  #params(name: MethodName, sent: unknown): unknown {
    if (Array.isArray(sent)) {
      throw new AppError("InvalidParams", "Params are given by name.", {
        hint: "Send an object instead of an array; rpc.discover tells the names.",
      });
    }
    const parsed = methods[name].params.safeParse(sent ?? {});
    if (!parsed.success) throw invalidParams(parsed.error);
    checkText(parsed.data);
    return parsed.data;
  }

  #context(session: Session, caller: Caller | undefined, log: Log, signal: AbortSignal): Context {
    const { database, config, secrets, workbench } = this.#deps;
    return {
      get caller(): Caller {
        if (caller === undefined) throw new AppError("Unauthenticated", "Sign in first.");
        return caller;
      },
      database,
      config,
      secrets,
      workbench,
      log,
      signal,
      ...(session.connection === undefined ? {} : { connection: session.connection }),
    };
  }

  /** Run with a signal that follows the caller's, and give up waiting after the time-out. */
  async #withDeadline<T>(outer: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    const follow = () => controller.abort(outer.reason);
    if (outer.aborted) follow();
    else outer.addEventListener("abort", follow, { once: true });
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      const error = new AppError("Timeout", "The call took too long.", {
        hint: "Try again, or ask for less.",
      });
      late.reject(error);
      controller.abort(error);
    }, this.#deps.callTimeoutMs ?? 60_000);
    try {
      return await Promise.race([work(controller.signal), late.promise]);
    } finally {
      clearTimeout(timer);
      outer.removeEventListener("abort", follow);
    }
  }
}

function failure(error: AppError): Answer {
  return { text: errorText(null, error), error };
}

function isMethod(name: string): name is MethodName {
  return Object.hasOwn(methods, name);
}

/** The caller, when signed in with at least the role that the access level names. */
async function authorise(session: Session, access: Exclude<Access, "public">): Promise<Caller> {
  const caller = await session.caller();
  requireRole(caller, access);
  return caller;
}

function since(started: number): number {
  return Math.round((performance.now() - started) * 100) / 100;
}
