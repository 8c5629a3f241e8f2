"""The guest agent: process 1 of a sandbox's virtual machine. It starts programs as the user 1000, in control groups,
and speaks with the host over the virtio-serial port `cds.agent`.

Both directions carry frames: u32 big-endian length of what follows (1 byte to 1 MiB), u8 type, payload.
  1  JSON in UTF-8                      2  stdout: u32 id of its exec, bytes
  4  stdin (to the guest; empty: end)   3  stderr: the same
Before frames count, both sides agree where the first begins. The host sends SYNC (8 zero bytes, `CDSAGENT`) and 16
bytes of its choice; the agent repeats all 32, then says {event:"ready"}. Until then the agent skips what it hears. It
does so after its start, after `freeze`, and after a frame that is none: a snapshot resumes in a known state whatever
was under way, and an empty length is no frame, so a new host is heard at any boundary between frames.

Requests are {op, id, ...}; answers {id, ok:true, ...} or {id, error}. `prepare` comes first after each SYNC: until the
machine has entropy and a clock of its own, nothing is run, read or written.
  ping | prepare{entropy, now_ms, hostname?, disk_bytes?} | stats | freeze (ends every program; then hunts for SYNC)
  exec{argv, env, cwd, stdin, timeout_ms?, limits{processes?, memory_bytes?, output_bytes?}} -> {id, event:"started",
    pid}, output, {id, event:"stdin", bytes} for what the program has taken, {id, event:"exit", code, signal, ...}
  kill{target, signal?}: without a signal all processes of that exec end at once; with one it goes to each of them
  write{path, mode, offset, data} | read{path, offset, max_bytes}: regular files, with the rights of the user

The agent holds no randomness (its hash seed is fixed, no module that keeps any is loaded), for a snapshot's clones
share its memory. What it buffers is bounded: it stops reading programs, then the port, while the host does not read.
"""

import binascii
import errno
import fcntl
import json
import os
import select
import signal
import struct
import sys
import time

VERSION = 1
SYNC = bytes(8) + b"CDSAGENT"
NONCE_BYTES = 16
MAX_FRAME = 1 << 20
JSON, STDOUT, STDERR, STDIN = 1, 2, 3, 4
USER = 1000
CHUNK = 64 << 10
# Above this the host is not keeping up: programs and port are left unread.
MAX_QUEUED = 256 << 10
STDIN_WINDOW = 256 << 10
MAX_EXECS = 32
# Of the user, in all programs together.
MAX_PROCESSES = 1024
MAX_FILE_CHUNK = 512 << 10
# Kept back from programs, so that the agent and the kernel can always work.
RESERVED_BYTES = 16 << 20
# How long an ended program's pipes may stay open in the hands of something that outlived it.
LINGER_S = 0.5
DEFAULT_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/home/user",
    "USER": "user",
    "LOGNAME": "user",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
}
RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207
CGROUPS = "/sys/fs/cgroup"


class Refused(Exception):
    """What the request's sender is told."""


class Malformed(Exception):
    """Not a frame: nothing after it can be understood."""


def put(path, text):
    with open(path, "w") as file:
        file.write(text)


def take(path):
    with open(path) as file:
        return file.read()


def integer(value, low, high, name):
    if type(value) is not int or not low <= value <= high:
        raise Refused("%s is not a whole number from %d to %d" % (name, low, high))
    return value


def text(value, name):
    if type(value) is not str or "\0" in value or not value:
        raise Refused("%s is no text" % name)
    return value


class Group:
    """The processes of one exec: a control group in the machine, a process group elsewhere."""

    def __init__(self, number, limits):
        self.path = None
        self.leader = 0
        if not MACHINE:
            return
        self.path = "%s/user/x%d" % (CGROUPS, number)
        os.mkdir(self.path)
        put(self.path + "/memory.oom.group", "1")
        if "processes" in limits:
            put(self.path + "/pids.max", str(integer(limits["processes"], 1, 1 << 22, "processes")))
        if "memory_bytes" in limits:
            put(self.path + "/memory.max", str(integer(limits["memory_bytes"], 1, 1 << 50, "memory_bytes")))

    def join(self):
        """In the child, before it is anything."""
        if self.path:
            put(self.path + "/cgroup.procs", "0")

    def pids(self):
        return [int(line) for line in take(self.path + "/cgroup.procs").split()] if self.path else []

    def send(self, number):
        if self.path and number == signal.SIGKILL:
            put(self.path + "/cgroup.kill", "1")
            return
        for pid in self.pids() if self.path else ([-self.leader] if self.leader else []):
            try:
                os.kill(pid, number)
            except OSError:
                pass

    def events(self, file, key):
        for line in take("%s/%s" % (self.path, file)).splitlines():
            name, value = line.split()
            if name == key:
                return int(value)
        return 0

    def limit_hit(self):
        if not self.path:
            return None
        if self.events("memory.events", "oom_kill") > 0:
            return "memory"
        return "processes" if self.events("pids.events", "max") > 0 else None

    def remove(self):
        """Whether it is gone; it is not while a process of it is still ending."""
        if not self.path:
            return True
        try:
            os.rmdir(self.path)
        except OSError as error:
            return error.errno == errno.ENOENT
        return True


class Exec:
    def __init__(self, number, request):
        limits = request.get("limits", {})
        if type(limits) is not dict:
            raise Refused("limits is no object")
        self.id = number
        self.left = integer(limits.get("output_bytes", 1 << 50), 0, 1 << 50, "output_bytes")
        timeout = integer(request.get("timeout_ms", 1 << 40), 1, 1 << 40, "timeout_ms")
        self.argv = [text(part, "argv") if part else "" for part in request.get("argv") or [None]]
        env = request.get("env", {})
        if not self.argv[0] or type(env) is not dict:
            raise Refused("argv is empty, or env no object")
        # An empty value is a value.
        self.env = dict(DEFAULT_ENV, **{text(k, "env"): text(v, "env") if v else "" for k, v in env.items()})
        self.cwd = text(request.get("cwd", "/work"), "cwd")
        self.truncated = False
        self.timed_out = False
        self.status = None
        self.input = bytearray()
        self.input_ended = False
        self.stdin = None
        self.outputs = {}
        self.linger = None
        self.group = Group(number, limits)
        try:
            self.start(request.get("stdin") is True)
        except BaseException:
            self.group.send(signal.SIGKILL)
            self.group.remove()
            raise
        self.deadline = time.monotonic() + timeout / 1000

    def start(self, with_stdin):
        stdin = os.pipe() if with_stdin else (os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), None)
        out, err, failure = os.pipe(), os.pipe(), os.pipe()
        child_ends = [stdin[0], out[1], err[1], failure[1]]
        try:
            pid = os.fork()
            if pid == 0:
                self.become(stdin[0], out[1], err[1], failure[1])
        except OSError:
            for fd in (stdin[1], out[0], err[0], failure[0]):
                if fd is not None:
                    os.close(fd)
            raise
        finally:
            for fd in child_ends:
                os.close(fd)
        self.pid = self.group.leader = pid
        # Empty once the program runs: the pipe closes itself on exec.
        problem = os.read(failure[0], 4096).decode("utf-8", "replace")
        os.close(failure[0])
        if problem:
            os.waitpid(pid, 0)
            for fd in (stdin[1], out[0], err[0]):
                if fd is not None:
                    os.close(fd)
            raise Refused(problem)
        self.outputs = {out[0]: STDOUT, err[0]: STDERR}
        self.stdin = stdin[1]
        for fd in (stdin[1], out[0], err[0]):
            if fd is not None:
                os.set_blocking(fd, False)

    def become(self, stdin, stdout, stderr, failure):
        """In the child: never returns."""
        try:
            self.group.join()
            os.setsid()
            # Python ignores these; handlers, the agent's one, end with exec.
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            for target, fd in enumerate((stdin, stdout, stderr)):
                os.dup2(fd, target)
            if MACHINE:
                os.setpriority(os.PRIO_PROCESS, 0, 0)
                put("/proc/self/oom_score_adj", "500")
                os.setgroups([])
                os.setresgid(USER, USER, USER)
                os.setresuid(USER, USER, USER)
            os.umask(0o022)
            os.chdir(self.cwd)
            self.execute()
        except BaseException as error:
            problem = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else repr(error)
            os.write(failure, ("cannot start %s in %s: %s" % (self.argv[0], self.cwd, problem)).encode()[:4000])
        finally:
            os._exit(127)

    def execute(self):
        """As execvpe does, but for what that imports first: in every child it would cost more than all the rest."""
        program = self.argv[0]
        places = [""] if "/" in program else [part + "/" for part in self.env["PATH"].split(":")]
        problem = None
        for place in places:
            try:
                os.execve(place + program, self.argv, self.env)
            except (FileNotFoundError, NotADirectoryError) as error:
                problem = problem or error
            except OSError as error:
                problem = error
        raise problem

    def close_stdin(self):
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None
        self.input.clear()


class Agent:
    def __init__(self, port_in, port_out):
        self.port_in = port_in
        self.port_out = port_out
        self.heard = bytearray()
        self.queue = bytearray()
        self.hunting = True
        self.prepared = False
        self.freezing = None
        self.execs = {}
        self.ended = []
        self.hung_up = False
        self.wake, wake_in = os.pipe()
        for fd in (port_in, port_out, self.wake, wake_in):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    # What is said.

    def frame(self, kind, *parts):
        self.queue += struct.pack(">IB", 1 + sum(map(len, parts)), kind)
        for part in parts:
            self.queue += part

    def say(self, **message):
        self.frame(JSON, json.dumps(message).encode())

    def flush(self):
        while self.queue:
            try:
                del self.queue[: os.write(self.port_out, memoryview(self.queue)[:CHUNK].tobytes())]
            except BlockingIOError:
                return

    # What is heard.

    def listen(self):
        try:
            data = os.read(self.port_in, CHUNK)
        except BlockingIOError:
            return
        if not data:
            if not MACHINE:
                self.end_all()
                sys.exit(0)
            self.hung_up = True
            return
        self.heard += data
        while True:
            try:
                return self.understand()
            except Malformed as problem:
                self.end_all()
                self.say(event="error", error=str(problem))
                self.hunting = True

    def understand(self):
        while True:
            if self.hunting:
                if not self.hunt():
                    return
            if len(self.heard) < 4:
                return
            (length,) = struct.unpack_from(">I", self.heard)
            if not 1 <= length <= MAX_FRAME:
                raise Malformed("a frame of %d bytes" % length)
            if len(self.heard) < 4 + length:
                return
            kind, payload = self.heard[4], bytes(self.heard[5 : 4 + length])
            del self.heard[: 4 + length]
            if kind == JSON:
                self.request(payload)
            elif kind == STDIN and len(payload) >= 4:
                self.feed(struct.unpack_from(">I", payload)[0], payload[4:])
            else:
                raise Malformed("a frame of type %d" % kind)

    def hunt(self):
        at = self.heard.find(SYNC)
        if at < 0:
            del self.heard[: max(0, len(self.heard) - len(SYNC) + 1)]
            return False
        end = at + len(SYNC) + NONCE_BYTES
        if len(self.heard) < end:
            del self.heard[:at]
            return False
        # Whoever asked before is gone: what was to be said to him is not said to the next.
        self.end_all()
        self.queue.clear()
        self.queue += SYNC + self.heard[end - NONCE_BYTES : end]
        del self.heard[:end]
        self.hunting = False
        self.prepared = False
        self.freezing = None
        self.say(event="ready", version=VERSION)
        return True

    def request(self, payload):
        try:
            message = json.loads(payload)
            number = message["id"]
            operation = message["op"]
            if type(number) is not int or not 0 < number < 1 << 32 or type(operation) is not str:
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Malformed("a request that is none") from None
        try:
            handler = getattr(self, "do_" + operation, None)
            if handler is None:
                raise Refused("unknown operation")
            if not self.prepared and operation not in ("ping", "prepare", "freeze", "stats"):
                raise Refused("not prepared")
            handler(number, message)
        except Refused as problem:
            self.say(id=number, error=str(problem))
        except OSError as problem:
            self.say(id=number, error=os.strerror(problem.errno or 0), errno=errno.errorcode.get(problem.errno or 0))
        except (ValueError, TypeError, KeyError, MemoryError) as problem:
            self.say(id=number, error="invalid: %r" % problem)

    def feed(self, number, data):
        job = self.execs.get(number)
        if job is None or job.input_ended:
            # It ended while these bytes were on their way.
            return
        if not data:
            job.input_ended = True
        elif len(job.input) + len(data) > STDIN_WINDOW:
            raise Malformed("more input than was asked for")
        job.input += data
        self.pour(job)

    # Operations.

    def do_ping(self, number, _):
        self.say(id=number, ok=True)

    def do_prepare(self, number, message):
        entropy = binascii.a2b_base64(text(message["entropy"], "entropy"))
        now = integer(message["now_ms"], 0, 1 << 50, "now_ms")
        if len(entropy) < 32:
            raise Refused("entropy of less than 32 bytes")
        if MACHINE:
            fd = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, RNDADDENTROPY, struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy)
                fcntl.ioctl(fd, RNDRESEEDCRNG)
            finally:
                os.close(fd)
            time.clock_settime(time.CLOCK_REALTIME, now / 1000)
            name = text(message.get("hostname", "sandbox"), "hostname")
            put("/proc/sys/kernel/hostname", name)
            put("/run/hosts", "127.0.0.1 localhost %s\n" % name)
            if "disk_bytes" in message:
                size = integer(message["disk_bytes"], 1 << 16, 1 << 50, "disk_bytes")
                remount("/run/disk", size)
            # Files that a snapshot brought along count as used.
            free = meminfo("MemAvailable") + int(take(CGROUPS + "/user/memory.current"))
            put(CGROUPS + "/user/memory.max", str(max(RESERVED_BYTES, free - RESERVED_BYTES)))
        self.prepared = True
        self.say(id=number, ok=True)

    def do_exec(self, number, message):
        if self.freezing is not None:
            raise Refused("being frozen")
        if number in self.execs:
            raise Refused("this id is in use")
        if len(self.execs) >= MAX_EXECS:
            raise Refused("too many programs at once")
        job = Exec(number, message)
        self.execs[number] = job
        self.say(id=number, event="started", pid=job.pid)

    def do_kill(self, number, message):
        job = self.execs.get(message.get("target"))
        if job is not None:
            job.group.send(integer(message.get("signal", int(signal.SIGKILL)), 1, 64, "signal"))
        self.say(id=number, ok=True, found=job is not None)

    def do_stats(self, number, _):
        facts = {"memory_bytes": 0, "cpu_ms": 0, "processes": 0, "disk_bytes": 0, "disk_limit_bytes": 0}
        if MACHINE:
            disk = os.statvfs("/run/disk")
            user = CGROUPS + "/user"
            facts = {
                "memory_bytes": meminfo("MemTotal") - meminfo("MemAvailable"),
                "cpu_ms": int(take(user + "/cpu.stat").split()[1]) // 1000,
                "processes": int(take(user + "/pids.current")),
                "disk_bytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
                "disk_limit_bytes": disk.f_blocks * disk.f_frsize,
            }
        self.say(id=number, ok=True, **facts)

    def do_freeze(self, number, _):
        if self.freezing is not None:
            raise Refused("being frozen")
        self.freezing = number
        for job in self.execs.values():
            job.group.send(signal.SIGKILL)

    def do_write(self, number, message):
        data = binascii.a2b_base64(message["data"])
        offset = integer(message.get("offset", 0), 0, 1 << 50, "offset")
        mode = integer(message.get("mode", 0o644), 0, 0o777, "mode")
        path = os.path.join("/work" if MACHINE else os.getcwd(), text(message["path"], "path"))
        with Rights():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            fd = self.regular(path, os.O_WRONLY | os.O_CREAT, mode)
            try:
                if offset == 0:
                    os.ftruncate(fd, 0)
                    os.fchmod(fd, mode)
                view = memoryview(data)
                while view:
                    written = os.pwrite(fd, view, offset)
                    view, offset = view[written:], offset + written
            finally:
                os.close(fd)
        self.say(id=number, ok=True)

    def do_read(self, number, message):
        length = integer(message.get("max_bytes", MAX_FILE_CHUNK), 0, MAX_FILE_CHUNK, "max_bytes")
        offset = integer(message.get("offset", 0), 0, 1 << 50, "offset")
        path = os.path.join("/work" if MACHINE else os.getcwd(), text(message["path"], "path"))
        with Rights():
            fd = self.regular(path, os.O_RDONLY, 0)
            try:
                data, size = os.pread(fd, length, offset), os.fstat(fd).st_size
            finally:
                os.close(fd)
        self.say(id=number, ok=True, size=size, data=binascii.b2a_base64(data, newline=False).decode())

    def regular(self, path, flags, mode):
        """A pipe planted where a file is expected must not stop the agent."""
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        if os.fstat(fd).st_mode & 0o170000 != 0o100000:
            os.close(fd)
            raise Refused("not a regular file")
        return fd

    # Programs.

    def pour(self, job):
        taken = 0
        try:
            while job.input and job.stdin is not None:
                count = os.write(job.stdin, memoryview(job.input)[:CHUNK].tobytes())
                del job.input[:count]
                taken += count
        except BlockingIOError:
            pass
        except OSError:
            # The program reads no more.
            taken += len(job.input)
            job.input_ended = True
            job.close_stdin()
        if taken:
            self.say(id=job.id, event="stdin", bytes=taken)
        if job.input_ended and not job.input:
            job.close_stdin()

    def collect(self, job, fd):
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        if not data:
            os.close(fd)
            del job.outputs[fd]
            return
        if job.status is not None:
            job.linger = max(job.linger, min(time.monotonic() + LINGER_S, job.deadline))
        if len(data) > job.left:
            job.truncated = True
            data = data[: job.left]
        job.left -= len(data)
        if data:
            self.frame(job.outputs[fd], struct.pack(">I", job.id), data)

    def reap(self):
        try:
            while os.read(self.wake, 4096):
                pass
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for job in self.execs.values():
                if job.pid == pid:
                    job.status = status
                    job.linger = time.monotonic() + LINGER_S
                    # What a program leaves behind ends with it.
                    job.group.send(signal.SIGKILL)

    def advance(self, job):
        """End what is over: the deadline first, then, when nothing of it is left, the exec."""
        now = time.monotonic()
        if job.status is None:
            if now >= job.deadline and not job.timed_out:
                job.timed_out = True
                job.group.send(signal.SIGKILL)
            return
        if job.outputs and len(self.queue) >= MAX_QUEUED:
            # What it said last waits in its pipes for the host.
            job.linger = now + LINGER_S
        if job.outputs and now < job.linger:
            return
        for fd in list(job.outputs):
            os.close(fd)
        job.outputs.clear()
        job.close_stdin()
        limit = job.group.limit_hit()
        if not job.group.remove():
            job.group.send(signal.SIGKILL)
            self.ended.append(job.group)
        code = os.waitstatus_to_exitcode(job.status)
        facts = {"code": None, "signal": -code} if code < 0 else {"code": code, "signal": None}
        if job.truncated:
            facts["truncated"] = True
        if job.timed_out:
            facts["timed_out"] = True
        if limit is not None and code != 0 and not job.timed_out:
            facts["limit"] = limit
        del self.execs[job.id]
        self.say(id=job.id, event="exit", **facts)

    def end_all(self):
        """At once, and without a word: nobody is there who would want to know."""
        for job in self.execs.values():
            job.group.send(signal.SIGKILL)
            for fd in job.outputs:
                os.close(fd)
            job.outputs.clear()
            job.close_stdin()
            self.ended.append(job.group)
        self.execs.clear()

    def freeze(self):
        """Everything is over: keep little memory, answer, and wait for whoever wakes up with this machine."""
        number, self.freezing = self.freezing, None
        if MACHINE:
            os.sync()
            put("/proc/sys/vm/drop_caches", "3")
        self.say(id=number, ok=True)
        self.hunting = True
        self.prepared = False

    # The loop.

    def poll(self):
        poller = select.poll()
        mine = {self.wake: None}
        poller.register(self.wake, select.POLLIN)
        room = len(self.queue) < MAX_QUEUED
        ports = {}
        if not self.hung_up and room:
            ports[self.port_in] = select.POLLIN
        if not self.hung_up and self.queue:
            ports[self.port_out] = ports.get(self.port_out, 0) | select.POLLOUT
        for fd, mask in ports.items():
            poller.register(fd, mask)
        now = time.monotonic()
        times = [0.05] if self.hung_up or self.ended or self.freezing is not None else []
        for job in self.execs.values():
            if room:
                for fd in job.outputs:
                    mine[fd] = job
                    poller.register(fd, select.POLLIN)
            if job.input and job.stdin is not None:
                mine[job.stdin] = job
                poller.register(job.stdin, select.POLLOUT)
            if job.status is not None:
                times.append(max(0, job.linger - now))
            elif not job.timed_out:
                times.append(max(0, job.deadline - now))
        wait = min(min(times) * 1000 + 1, 1 << 30) if times else None
        return poller.poll(wait), mine

    def run(self):
        while True:
            events, mine = self.poll()
            self.hung_up = False
            for fd, event in events:
                if fd == self.port_in and event & ~select.POLLOUT:
                    if MACHINE and event & select.POLLHUP and not event & select.POLLIN:
                        self.hung_up = True
                    else:
                        self.listen()
                job = mine.get(fd)
                if job is None:
                    continue
                if fd == job.stdin:
                    self.pour(job)
                elif fd in job.outputs:
                    self.collect(job, fd)
            self.reap()
            for job in list(self.execs.values()):
                self.advance(job)
            self.ended = [group for group in self.ended if not group.remove()]
            if self.freezing is not None and not self.execs and not self.ended:
                self.freeze()
            self.flush()


class Rights:
    """What the user may: for what is done with files under his control."""

    def __enter__(self):
        if MACHINE:
            os.setegid(USER)
            os.seteuid(USER)

    def __exit__(self, *_):
        if MACHINE:
            os.seteuid(0)
            os.setegid(0)


def meminfo(key):
    """Bytes."""
    for line in take("/proc/meminfo").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def remount(path, size):
    """The size of the one file system that can be written; inodes in proportion, for they take memory as well."""
    inodes = max(1024, size // 8192)
    if os.spawnv(os.P_WAIT, "/run/cds/busybox", ["mount", "-o", "remount,size=%d,nr_inodes=%d" % (size, inodes), path]):
        raise Refused("the disk cannot have this size")


def machine_port():
    """The device of the port named `cds.agent`."""
    for _ in range(200):
        for port in os.listdir("/sys/class/virtio-ports"):
            if take("/sys/class/virtio-ports/%s/name" % port).strip() == "cds.agent":
                return os.open("/dev/" + port, os.O_RDWR | os.O_CLOEXEC)
        time.sleep(0.05)
    raise SystemExit("no port cds.agent")


def be_process_one():
    os.setpriority(os.PRIO_PROCESS, 0, -10)
    put("/proc/self/oom_score_adj", "-1000")
    put(CGROUPS + "/cgroup.subtree_control", "+memory +pids")
    os.mkdir(CGROUPS + "/user")
    put(CGROUPS + "/user/cgroup.subtree_control", "+memory +pids")
    put(CGROUPS + "/user/pids.max", str(MAX_PROCESSES))
    # Nothing here needs them, and they are the usual ways from a user to root.
    put("/proc/sys/user/max_user_namespaces", "0")
    port = machine_port()
    put("/proc/sys/kernel/modules_disabled", "1")
    return port, port


MACHINE = sys.argv[1:] != ["--stdio"]

if __name__ == "__main__":
    Agent(*(be_process_one() if MACHINE else (0, 1))).run()
