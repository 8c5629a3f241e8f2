import { Fd, wasi } from "@bjorn3/browser_wasi_shim";
import { ERRNO, type FileClient, FileError, resolvePath } from "./file-client.ts";
import type { ListedFile } from "./protocol.ts";

const ALL_RIGHTS = (1n << 30n) - 1n;
const FIRST_CAPACITY = 1024;
/** Bytes that one instance can hold of open files together. */
const OPEN_BYTES = 64 * 1024 * 1024;
const MAX_MADE_DIRECTORIES = 1000;
/** Largest whole number that is one exactly. */
const MAX_POSITION = BigInt(Number.MAX_SAFE_INTEGER);

/** What all open files of an instance share. */
export interface OpenFiles {
  client: FileClient;
  /** Bytes they may still take. */
  room: number;
  /** Those with something to be written. */
  changed: Set<ProjectFile>;
  /** Directories the module has made, which exist nowhere else until there is a file in them. */
  made: Set<string>;
}

export function openFiles(client: FileClient): OpenFiles {
  return { client, room: OPEN_BYTES, changed: new Set(), made: new Set() };
}

/** As the error number of what `act` threw, or its answer. */
function attempt<T>(act: () => T, failed: (errno: number) => T): T {
  try {
    return act();
  } catch (error) {
    if (error instanceof FileError) return failed(error.errno);
    throw error;
  }
}

/** Always the same number for a path, as file systems give. */
function numberOf(path: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (let index = 0; index < path.length; index += 1) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(path.charCodeAt(index))) * 0x100000001b3n);
  }
  return hash;
}

const status = (path: string, { directory, size }: { directory: boolean; size: number }) =>
  new wasi.Filestat(
    numberOf(path),
    directory ? wasi.FILETYPE_DIRECTORY : wasi.FILETYPE_REGULAR_FILE,
    BigInt(size),
  );

/** One file of the project, as a whole in memory while it is open; written back when it is synced or closed. */
class ProjectFile extends Fd {
  readonly #path: string;
  readonly #shared: OpenFiles;
  readonly #writable: boolean;
  readonly #append: boolean;
  #bytes: Uint8Array;
  #size: number;
  #position = 0;

  constructor(shared: OpenFiles, path: string, bytes: Uint8Array, mode: { write: boolean; append: boolean }) {
    super();
    if (bytes.length > shared.room) throw new FileError(ERRNO.noSpace);
    shared.room -= bytes.length;
    this.#shared = shared;
    this.#path = path;
    this.#bytes = bytes;
    this.#size = bytes.length;
    this.#writable = mode.write;
    this.#append = mode.append;
  }

  /** Write back what has changed. Throws FileError. */
  flush(): void {
    if (!this.#shared.changed.delete(this)) return;
    this.#shared.client.write(this.#path, this.#bytes.slice(0, this.#size));
  }

  /** To be written even if nothing follows: it is new, or has been emptied. */
  touch(): void {
    this.#shared.changed.add(this);
  }

  override fd_fdstat_get() {
    const fdstat = new wasi.Fdstat(wasi.FILETYPE_REGULAR_FILE, this.#append ? wasi.FDFLAGS_APPEND : 0);
    fdstat.fs_rights_base = ALL_RIGHTS;
    return { ret: ERRNO.ok, fdstat };
  }

  override fd_filestat_get() {
    return { ret: ERRNO.ok, filestat: status(this.#path, { directory: false, size: this.#size }) };
  }

  override fd_read(size: number) {
    const data = this.#slice(size, this.#position);
    this.#position += data.length;
    return { ret: ERRNO.ok, data };
  }

  override fd_pread(size: number, offset: bigint) {
    if (offset < 0n) return { ret: ERRNO.invalid, data: new Uint8Array() };
    return { ret: ERRNO.ok, data: this.#slice(size, Number(offset)) };
  }

  override fd_write(data: Uint8Array) {
    if (this.#append) this.#position = this.#size;
    const answer = this.#put(data, this.#position);
    this.#position += answer.nwritten;
    return answer;
  }

  override fd_pwrite(data: Uint8Array, offset: bigint) {
    if (offset < 0n) return { ret: ERRNO.invalid, nwritten: 0 };
    return this.#put(data, Number(offset));
  }

  override fd_filestat_set_size(size: bigint): number {
    if (!this.#writable) return ERRNO.badDescriptor;
    return attempt(
      () => {
        this.#resize(Number(BigInt.asUintN(64, size)));
        this.touch();
        return ERRNO.ok;
      },
      (errno): number => errno,
    );
  }

  override fd_seek(offset: bigint, whence: number) {
    const from = [0, this.#position, this.#size][whence];
    const target = from === undefined ? -1n : BigInt(from) + offset;
    if (target < 0n || target > MAX_POSITION) return { ret: ERRNO.invalid, offset: 0n };
    this.#position = Number(target);
    return { ret: ERRNO.ok, offset: target };
  }

  override fd_tell() {
    return { ret: ERRNO.ok, offset: BigInt(this.#position) };
  }

  override fd_sync(): number {
    return attempt(
      () => {
        this.flush();
        return ERRNO.ok;
      },
      (errno): number => errno,
    );
  }

  override fd_close(): number {
    const answer = this.fd_sync();
    this.#shared.changed.delete(this);
    this.#shared.room += this.#bytes.length;
    this.#bytes = new Uint8Array();
    this.#size = 0;
    return answer;
  }

  #slice(size: number, from: number): Uint8Array {
    return this.#bytes.slice(Math.min(from, this.#size), Math.min(from + size, this.#size));
  }

  #put(data: Uint8Array, at: number): { ret: number; nwritten: number } {
    if (!this.#writable) return { ret: ERRNO.badDescriptor, nwritten: 0 };
    return attempt<{ ret: number; nwritten: number }>(
      () => {
        if (at + data.length > this.#size) this.#resize(at + data.length);
        this.#bytes.set(data, at);
        this.touch();
        return { ret: ERRNO.ok, nwritten: data.length };
      },
      (ret) => ({ ret, nwritten: 0 }),
    );
  }

  #resize(size: number): void {
    const { client } = this.#shared;
    if (size > client.maxBytes) throw new FileError(ERRNO.tooBig);
    if (size > this.#bytes.length) {
      const capacity = Math.min(client.maxBytes, Math.max(size, this.#bytes.length * 2, FIRST_CAPACITY));
      const more = capacity - this.#bytes.length;
      if (more > this.#shared.room) throw new FileError(ERRNO.noSpace);
      this.#shared.room -= more;
      const larger = new Uint8Array(capacity);
      larger.set(this.#bytes.subarray(0, this.#size));
      this.#bytes = larger;
    } else if (size < this.#size) this.#bytes.fill(0, size, this.#size);
    this.#size = size;
  }
}

/** A directory of the project; with a name it is one that the module finds open when it starts. */
export class ProjectDirectory extends Fd {
  readonly #shared: OpenFiles;
  readonly #path: string;
  readonly #name: string | undefined;
  #entries: ListedFile[] = [];

  constructor(shared: OpenFiles, path: string, name?: string) {
    super();
    this.#shared = shared;
    this.#path = path;
    this.#name = name;
  }

  override fd_fdstat_get() {
    const fdstat = new wasi.Fdstat(wasi.FILETYPE_DIRECTORY, 0);
    fdstat.fs_rights_base = ALL_RIGHTS;
    fdstat.fs_rights_inherited = ALL_RIGHTS;
    return { ret: ERRNO.ok, fdstat };
  }

  override fd_filestat_get() {
    return { ret: ERRNO.ok, filestat: status(this.#path, { directory: true, size: 0 }) };
  }

  override fd_prestat_get() {
    if (this.#name === undefined) return { ret: ERRNO.badDescriptor, prestat: null };
    return { ret: ERRNO.ok, prestat: wasi.Prestat.dir(this.#name) };
  }

  override fd_readdir_single(cookie: bigint) {
    return attempt<{ ret: number; dirent: wasi.Dirent | null }>(
      () => {
        if (cookie === 0n) this.#entries = this.#shared.client.list(this.#path);
        const entry = this.#entries[Number(BigInt.asUintN(32, cookie))];
        if (entry === undefined) return { ret: ERRNO.ok, dirent: null };
        const type = entry.directory ? wasi.FILETYPE_DIRECTORY : wasi.FILETYPE_REGULAR_FILE;
        const path = resolvePath(this.#path, entry.name);
        return { ret: ERRNO.ok, dirent: new wasi.Dirent(cookie + 1n, numberOf(path), entry.name, type) };
      },
      (ret) => ({ ret, dirent: null }),
    );
  }

  override path_filestat_get(_flags: number, path: string) {
    return attempt<{ ret: number; filestat: wasi.Filestat | null }>(
      () => {
        const target = resolvePath(this.#path, path);
        return { ret: ERRNO.ok, filestat: status(target, this.#find(target)) };
      },
      (ret) => ({ ret, filestat: null }),
    );
  }

  override path_open(
    _dirflags: number,
    path: string,
    oflags: number,
    rights: bigint,
    _inheriting: bigint,
    flags: number,
  ) {
    return attempt<{ ret: number; fd_obj: Fd | null }>(
      () => ({ ret: ERRNO.ok, fd_obj: this.#open(resolvePath(this.#path, path), oflags, rights, flags) }),
      (ret) => ({ ret, fd_obj: null }),
    );
  }

  override path_create_directory(path: string): number {
    return attempt(
      () => {
        const target = resolvePath(this.#path, path);
        const { client, made } = this.#shared;
        if (!client.writable) return ERRNO.readOnly;
        if (made.has(target) || client.find(target) !== undefined) return ERRNO.exists;
        if (made.size >= MAX_MADE_DIRECTORIES) return ERRNO.noSpace;
        made.add(target);
        return ERRNO.ok;
      },
      (errno): number => errno,
    );
  }

  #find(path: string): ListedFile {
    if (this.#shared.made.has(path)) return { name: "", directory: true, size: 0 };
    const found = this.#shared.client.find(path);
    if (found === undefined) throw new FileError(ERRNO.noEntry);
    return found;
  }

  #open(path: string, oflags: number, rights: bigint, flags: number): Fd {
    const found = attempt<ListedFile | undefined>(
      () => this.#find(path),
      (errno) => {
        if (errno !== ERRNO.noEntry) throw new FileError(errno);
        return undefined;
      },
    );
    const has = (flag: number) => (oflags & flag) === flag;
    if (found?.directory === true) return new ProjectDirectory(this.#shared, path);
    if (has(wasi.OFLAGS_DIRECTORY))
      throw new FileError(found === undefined ? ERRNO.noEntry : ERRNO.notDirectory);
    const { client } = this.#shared;
    const write = client.writable && (rights & BigInt(wasi.RIGHTS_FD_WRITE)) !== 0n;
    const mode = { write, append: (flags & wasi.FDFLAGS_APPEND) !== 0 };
    if (found === undefined || has(wasi.OFLAGS_TRUNC)) {
      if (found === undefined && !has(wasi.OFLAGS_CREAT)) throw new FileError(ERRNO.noEntry);
      if (!write) throw new FileError(ERRNO.readOnly);
      const file = new ProjectFile(this.#shared, path, new Uint8Array(), mode);
      file.touch();
      return file;
    }
    if (has(wasi.OFLAGS_CREAT) && has(wasi.OFLAGS_EXCL)) throw new FileError(ERRNO.exists);
    return new ProjectFile(this.#shared, path, client.read(path), mode);
  }
}
