import type { Db } from "#database";
import { addSnapshot, deleteSnapshot, ownedSnapshots, snapshotsOf } from "#database/snapshots/index.ts";
import type { Caller } from "#platform/authenticate.ts";
import type { Config } from "#platform/config/config.ts";
import type { Log } from "#platform/log.ts";
import type { ExecuteRequest, MicroEngine, SnapshotInfo, Vm } from "#sandbox";
import { AppError, type MethodParams, type MethodResult } from "#schemas";
import { PerUser } from "../per-user.ts";
import { Held } from "./held.ts";
import { checkTime } from "./time-limit.ts";
import { checkRoom } from "./workplace.ts";

type Executed = MethodResult<"micro.execute">;

export interface MachinesDeps {
  readonly db: Db;
  readonly config: Config;
  readonly engine: MicroEngine;
  readonly log: Log;
}

/** The virtual machines of all users, and their snapshots. */
export class Machines {
  readonly #deps: MachinesDeps;
  readonly #held: Held<Vm>;
  /** Snapshots that are being taken, by user. */
  readonly #taking = new PerUser();

  constructor(deps: MachinesDeps) {
    this.#deps = deps;
    this.#held = new Held({
      what: "virtual machine",
      perUser: deps.config.micro.machinesPerUser,
      hint: "Stop one of those that micro.list shows.",
    });
  }

  /** @throws AppError QuotaExceeded, EngineUnavailable, Unavailable; Timeout of the script: the machine is ended then. */
  async start(
    caller: Caller,
    { image, script, timeout_ms }: MethodParams<"micro.start">,
    signal: AbortSignal,
  ): Promise<MethodResult<"micro.start">> {
    const vm = await this.#open(caller, () => this.#deps.engine.start({ image, signal }));
    if (script === undefined) return { vm_id: vm.id, ...NOTHING_RUN };
    try {
      return { vm_id: vm.id, ...(await this.#execute(vm, { code: script, signal }, timeout_ms)) };
    } catch (error) {
      // Whoever asked never learned its id.
      await vm.close();
      throw error;
    }
  }

  /** @throws AppError NotFound, Timeout, Cancelled. */
  async execute(
    user_id: string,
    { vm_id, code, stdin, timeout_ms }: MethodParams<"micro.execute">,
    signal: AbortSignal,
  ): Promise<Executed> {
    const { value } = this.#held.find(user_id, vm_id);
    return this.#execute(value, { code, signal, ...(stdin === undefined ? {} : { stdin }) }, timeout_ms);
  }

  /** @throws AppError NotFound. */
  async stop(user_id: string, vm_id: string): Promise<void> {
    await this.#held.find(user_id, vm_id).value.close();
  }

  /** @throws AppError NotFound, Conflict, QuotaExceeded, EngineUnavailable. */
  async snapshot(user_id: string, vm_id: string): Promise<MethodResult<"micro.snapshot">> {
    const { db, config, engine } = this.#deps;
    const { value } = this.#held.find(user_id, vm_id);
    const limit = config.micro.snapshotsPerUser;
    const taking = this.#taking.of(user_id);
    const taken = this.#taking.take(user_id);
    let id: string;
    try {
      // Only those that are here: what another server has, nobody can see or delete on this one.
      const [own, kept] = [await snapshotsOf(db, user_id), this.#kept()];
      const here = [...own].filter((each) => kept.has(each));
      if (here.length + taking >= limit) throw tooMany(limit);
      id = await value.snapshot();
      await addSnapshot(db, { id, owner_id: user_id }).catch(async (error: unknown) => {
        await engine.deleteSnapshot(id);
        throw error;
      });
    } finally {
      taken();
    }
    const kept = this.#kept().get(id);
    if (kept === undefined) throw new AppError("NotFound", "The snapshot has been deleted meanwhile.");
    return view(kept);
  }

  /** @throws AppError NotFound, QuotaExceeded, EngineUnavailable, Unavailable. */
  async restore(caller: Caller, snapshot_id: string, signal: AbortSignal): Promise<string> {
    await this.#needOwn(caller.user_id, snapshot_id);
    const { id } = await this.#open(caller, () => this.#deps.engine.restore(snapshot_id, { signal }));
    return id;
  }

  /** @throws AppError NotFound. */
  async forget(user_id: string, snapshot_id: string): Promise<void> {
    await this.#needOwn(user_id, snapshot_id);
    await deleteSnapshot(this.#deps.db, { id: snapshot_id, owner_id: user_id });
    if (this.#kept().has(snapshot_id)) await this.#deps.engine.deleteSnapshot(snapshot_id);
  }

  async list(user_id: string): Promise<MethodResult<"micro.list">> {
    const own = await snapshotsOf(this.#deps.db, user_id);
    return {
      machines: this.#held.of(user_id).map(({ value }) => ({
        vm_id: value.id,
        image: value.image,
        started_at: new Date(value.startedAt).toISOString(),
        memory_bytes: value.memoryBytes,
        idle_ms: this.#deps.config.micro.idleMs,
      })),
      snapshots: [...this.#kept().values()].filter(({ id }) => own.has(id)).map(view),
    };
  }

  /** Snapshots whose owner is gone. */
  async orphans(): Promise<{ id: string; bytes: number; remove: () => Promise<"removed" | "busy"> }[]> {
    const { db, engine } = this.#deps;
    const kept = [...this.#kept().values()].filter(({ createdAt }) => Date.now() - createdAt > UNCLAIMED_MS);
    const owned = async (ids: string[]) => ownedSnapshots(db, ids);
    const claimed = await owned(kept.map(({ id }) => id));
    return kept
      .filter(({ id }) => !claimed.has(id))
      .map(({ id, bytes }) => ({
        id,
        bytes,
        remove: async () => {
          if ((await owned([id])).has(id)) return "busy";
          await engine.deleteSnapshot(id);
          return "removed";
        },
      }));
  }

  async close(): Promise<void> {
    await Promise.all(this.#held.all().map(({ value }) => value.close().catch(() => undefined)));
  }

  #kept(): Map<string, SnapshotInfo> {
    return new Map(this.#deps.engine.snapshots().map((each) => [each.id, each]));
  }

  async #needOwn(user_id: string, snapshot_id: string): Promise<void> {
    if ((await snapshotsOf(this.#deps.db, user_id)).has(snapshot_id)) return;
    throw new AppError("NotFound", `There is no snapshot ${JSON.stringify(snapshot_id)}.`, {
      hint: "micro.list shows yours.",
    });
  }

  async #open({ user_id }: Caller, start: () => Promise<Vm>): Promise<Vm> {
    const release = this.#held.reserve(user_id);
    try {
      await checkRoom(this.#deps.config);
      const vm = await start();
      this.#held.add({ id: vm.id, user_id, value: vm });
      void vm.exited.then(() => {
        this.#held.delete(vm.id);
        release();
      });
      return vm;
    } catch (error) {
      release();
      throw error;
    }
  }

  async #execute(
    vm: Vm,
    request: Pick<ExecuteRequest, "code" | "stdin" | "signal">,
    timeout_ms: number | undefined,
  ): Promise<Executed> {
    const { run, workbench } = this.#deps.config;
    checkTime(timeout_ms, run.timeoutMs);
    const started = performance.now();
    const timeoutMs = timeout_ms ?? Math.min(DEFAULT_MS, run.timeoutMs);
    const result = await vm.execute({ ...request, timeoutMs, outputBytes: workbench.outputBytes });
    return {
      stdout: result.stdout.toString("utf8"),
      stderr: result.stderr.toString("utf8"),
      exit_code: result.exitCode,
      ...(result.signal === undefined ? {} : { signal: result.signal }),
      truncated: result.truncated,
      duration_ms: Math.round(performance.now() - started),
    };
  }
}

const tooMany = (limit: number) =>
  new AppError("QuotaExceeded", `You have ${limit} snapshots; that is the limit per user.`, {
    limit,
    hint: "Delete one by micro.forget.",
  });

const DEFAULT_MS = 60_000;
/** Between a snapshot's end and its owner's name in the database. */
const UNCLAIMED_MS = 60_000;

const NOTHING_RUN: Executed = { stdout: "", stderr: "", exit_code: 0, truncated: false, duration_ms: 0 };

function view({ id, machine, createdAt, bytes }: SnapshotInfo): MethodResult<"micro.snapshot"> {
  return {
    snapshot_id: id,
    image: machine.image,
    created_at: new Date(createdAt).toISOString(),
    bytes,
  };
}
