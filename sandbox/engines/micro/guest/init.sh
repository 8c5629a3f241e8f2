#!/busybox sh
# First program of the virtual machine, in its initrd: loads drivers, mounts the read-only root and the one
# file system that can be written, and becomes the agent. If anything fails, the kernel panics and the machine ends.
b=/busybox
fail() {
  echo "init: $*"
  exit 1
}
export PATH=/none
$b mount -t proc -o nosuid,nodev,noexec proc /proc || fail proc
$b mount -t sysfs -o nosuid,nodev,noexec sys /sys || fail sys
$b mount -t devtmpfs -o nosuid,noexec,mode=755 dev /dev || fail dev
for module in /modules/*.ko; do $b insmod "$module" || fail "$module"; done
tries=0
until [ -b /dev/vda ]; do
  tries=$((tries + 1))
  [ $tries -le 500 ] || fail "no disk"
  $b usleep 10000
done
$b mount -t squashfs -o ro,nosuid,nodev /dev/vda /root || fail root

# Small: what the agent needs. Its size does not count as the user's disk.
$b mount -t tmpfs -o nosuid,nodev,size=4m,mode=755 run /root/run || fail run
$b mkdir /root/run/cds /root/run/disk
$b cp /busybox /agent/*.py /root/run/cds/ || fail agent
echo "127.0.0.1 localhost" > /root/run/hosts
# Everything a user can write; the agent gives it its size with `prepare`.
$b mount -t tmpfs -o nosuid,nodev,size=16m,mode=755 disk /root/run/disk || fail disk
for place in work home/user tmp dev/shm; do
  source=/root/run/disk/${place##*/}
  $b mkdir "$source"
  case $place in
    work | home/user) $b chown 1000:1000 "$source" && $b chmod 750 "$source" ;;
    *) $b chmod 1777 "$source" ;;
  esac
done

$b mkdir /dev/shm /dev/pts
for mount in proc sys dev; do $b mount -o move /$mount /root/$mount || fail "move $mount"; done
for place in work home/user tmp dev/shm; do
  $b mount -o bind "/root/run/disk/${place##*/}" "/root/$place" || fail "$place"
done
$b mount -t devpts -o nosuid,noexec,mode=620,ptmxmode=666 pts /root/dev/pts || fail pts
$b mount -t cgroup2 -o nosuid,nodev,noexec cgroup /root/sys/fs/cgroup || fail cgroup
$b ifconfig lo 127.0.0.1 up
# A fixed hash seed: the agent's memory is shared by all clones of a snapshot and must hold nothing random.
exec $b env -i PYTHONHASHSEED=0 PATH=/usr/bin:/bin LANG=C.UTF-8 \
  $b switch_root /root /usr/bin/python3 -s -S -B /run/cds/agent.py
