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
import json
import os
import select
import signal
import struct
import sys
import time

import machine
from machine import MACHINE, Refused, integer, text
from program import Exec

VERSION = 1
SYNC = bytes(8) + b"CDSAGENT"
NONCE_BYTES = 16
MAX_FRAME = 1 << 20
JSON, STDIN = 1, 4
CHUNK = 64 << 10
# Above this the host is not keeping up: programs and port are left unread.
MAX_QUEUED = 256 << 10
STDIN_WINDOW = 256 << 10
MAX_EXECS = 32
MAX_FILE_CHUNK = 512 << 10
# How long an ended program's pipes may stay open in the hands of something that outlived it.
LINGER_S = 0.5
AGAIN_S = 0.05


class Malformed(Exception):
    """Not a frame: nothing after it can be understood."""


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
            if self.hunting and not self.hunt():
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
        self.queue[:] = SYNC + self.heard[end - NONCE_BYTES : end]
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
        name = text(message.get("hostname", "sandbox"), "hostname")
        size = message.get("disk_bytes")
        if size is not None:
            integer(size, 1 << 16, 1 << 50, "disk_bytes")
        if MACHINE:
            machine.set_up(entropy, now, name, size)
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
        self.say(id=number, ok=True, **machine.stats())

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
        machine.write_file(text(message["path"], "path"), data, mode, offset)
        self.say(id=number, ok=True)

    def do_read(self, number, message):
        length = integer(message.get("max_bytes", MAX_FILE_CHUNK), 0, MAX_FILE_CHUNK, "max_bytes")
        offset = integer(message.get("offset", 0), 0, 1 << 50, "offset")
        data, size = machine.read_file(text(message["path"], "path"), length, offset)
        self.say(id=number, ok=True, size=size, data=binascii.b2a_base64(data, newline=False).decode())

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
        if not job.group.empty():
            # Killed is not gone yet; its last process wakes us, or the time.
            job.linger = now + AGAIN_S
            return
        facts = job.finish()
        self.ended.append(job.group)
        del self.execs[job.id]
        self.say(id=job.id, event="exit", **facts)

    def end_all(self):
        """At once, and without a word: nobody is there who would want to know."""
        for job in self.execs.values():
            job.group.send(signal.SIGKILL)
            job.close()
            self.ended.append(job.group)
        self.execs.clear()

    def freeze(self):
        """Everything is over: keep little memory, answer, and wait for whoever wakes up with this machine."""
        number, self.freezing = self.freezing, None
        machine.drop_caches()
        self.say(id=number, ok=True)
        self.hunting = True
        self.prepared = False

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
        times = [AGAIN_S] if self.hung_up or self.ended or self.freezing is not None else []
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


if __name__ == "__main__":
    Agent(*(machine.be_process_one() if MACHINE else (0, 1))).run()
