"""The machine as the agent finds and sets it: its files, its memory, its clock, its entropy."""

import fcntl
import os
import struct
import sys
import time

# Otherwise the agent runs as an ordinary process, with the rights of whoever started it: for tests of what it says.
MACHINE = sys.argv[1:] != ["--stdio"]
USER = 1000
CGROUPS = "/sys/fs/cgroup"
# Of the user, in all programs together.
MAX_PROCESSES = 1024
# Kept back from programs, so that the agent and the kernel can always work.
RESERVED_BYTES = 16 << 20
RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207


class Refused(Exception):
    """What the request's sender is told."""


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


def set_up(entropy, now_ms, name, disk_bytes):
    """What makes this machine another one than its clones. `disk_bytes` None leaves the disk as it is."""
    fd = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, RNDADDENTROPY, struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy)
        fcntl.ioctl(fd, RNDRESEEDCRNG)
    finally:
        os.close(fd)
    time.clock_settime(time.CLOCK_REALTIME, now_ms / 1000)
    put("/proc/sys/kernel/hostname", name)
    put("/run/hosts", "127.0.0.1 localhost %s\n" % name)
    if disk_bytes is not None:
        remount("/run/disk", disk_bytes)
    # Files that a snapshot brought along count as used.
    free = meminfo("MemAvailable") + int(take(CGROUPS + "/user/memory.current"))
    put(CGROUPS + "/user/memory.max", str(max(RESERVED_BYTES, free - RESERVED_BYTES)))


def stats():
    if not MACHINE:
        return {"memory_bytes": 0, "cpu_ms": 0, "processes": 0, "disk_bytes": 0, "disk_limit_bytes": 0}
    disk = os.statvfs("/run/disk")
    user = CGROUPS + "/user"
    return {
        "memory_bytes": meminfo("MemTotal") - meminfo("MemAvailable"),
        "cpu_ms": int(take(user + "/cpu.stat").split()[1]) // 1000,
        "processes": int(take(user + "/pids.current")),
        "disk_bytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
        "disk_limit_bytes": disk.f_blocks * disk.f_frsize,
    }


def drop_caches():
    """What is not in memory need not be saved."""
    if MACHINE:
        os.sync()
        put("/proc/sys/vm/drop_caches", "3")


def write_file(path, data, mode, offset):
    with Rights():
        path = place(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = regular(path, os.O_WRONLY | os.O_CREAT, mode)
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


def read_file(path, length, offset):
    """The piece, and the size of the whole."""
    with Rights():
        fd = regular(place(path), os.O_RDONLY, 0)
        try:
            return os.pread(fd, length, offset), os.fstat(fd).st_size
        finally:
            os.close(fd)


def place(path):
    return os.path.join("/work" if MACHINE else os.getcwd(), path)


def regular(path, flags, mode):
    """A pipe planted where a file is expected must not stop the agent."""
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    if os.fstat(fd).st_mode & 0o170000 != 0o100000:
        os.close(fd)
        raise Refused("not a regular file")
    return fd
