"""A program the agent has started for somebody, and the processes that belong to it."""

import errno
import os
import signal
import time

from machine import CGROUPS, MACHINE, USER, Refused, integer, put, take, text

STDOUT, STDERR = 2, 3
DEFAULT_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/home/user",
    "USER": "user",
    "LOGNAME": "user",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
}


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

    def empty(self):
        """Whether every process of it has ended and been collected."""
        return not self.path or int(take(self.path + "/pids.current")) == 0

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

    def close(self):
        for fd in self.outputs:
            os.close(fd)
        self.outputs.clear()
        self.close_stdin()

    def finish(self):
        """It has ended: how, for its host to know."""
        self.close()
        code = os.waitstatus_to_exitcode(self.status)
        facts = {"code": None, "signal": -code} if code < 0 else {"code": code, "signal": None}
        if self.truncated:
            facts["truncated"] = True
        if self.timed_out:
            facts["timed_out"] = True
        limit = self.group.limit_hit()
        if limit is not None and code != 0 and not self.timed_out:
            facts["limit"] = limit
        return facts
