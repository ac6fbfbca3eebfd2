#!/bin/sh
# First process of a host of the rehearsal cloud: stands for what runs before the service manager on a machine, and
# makes boot faults true. They are files in /etc/rehearsal-faults; an empty one counts as none.
set -eu

faults=/etc/rehearsal-faults

if [ "${1:-}" = fill-disk ]; then
  percent=$(cat $faults/disk-full)
  df --block-size=1K --output=size,used,avail / | tail -n 1 | {
    read -r size used available
    missing=$((size * percent / 100 - used))
    [ $missing -le "$available" ] || missing=$available
    [ "$missing" -le 0 ] || fallocate -l "${missing}K" /var/tmp/rehearsal-fault-disk-full
  }
  echo "rehearsal fault disk-full: the disk is filled to $percent %"
  exit 0
fi

# A machine that never gets as far as its root file system: no service manager, no network, silence.
if [ -s $faults/never-boots ]; then
  if command -v ip >/dev/null; then ip link set eth0 down; fi
  cat $faults/never-boots
  # Not even a power button; the trap only spares Docker the wait. 37 is SIGRTMIN+3, which this shell has no name for.
  # shellcheck disable=SC2172
  trap 'exit 0' 37
  while :; do
    sleep 86400 &
    wait $!
  done
fi

# A disk of a limited size, with everything that is written from now on; sparse, so it takes what is really in it.
if [ -s $faults/disk-full ]; then
  image=/.rehearsal-disk.ext4 base=/.rehearsal
  number=0
  while [ $number -lt 64 ]; do
    [ -e /dev/loop$number ] || mknod /dev/loop$number b 7 $number
    number=$((number + 1))
  done
  if [ ! -e $image ]; then
    truncate -s 8G $image
    mkfs.ext4 -q -m 0 $image
  fi
  mkdir -p $base/disk $base/root
  mount -o loop $image $base/disk
  mkdir -p $base/disk/upper $base/disk/work
  mount -t overlay rehearsal-disk -o "lowerdir=/,upperdir=$base/disk/upper,workdir=$base/disk/work" $base/root
  while read -r _ point _; do
    case $point in / | $base/* | /proc/* | /sys/* | /dev/* | /run/*) continue ;; esac
    mount --rbind "$point" "$base/root$point"
  done </proc/mounts
  mkdir -p $base/root$base/old
  cd $base/root
  pivot_root . ".$base/old"
  umount -l $base/old
  # It fills when the host is up, as disks do, and is full at every later boot.
  units=/run/systemd/system
  mkdir -p $units/multi-user.target.wants
  cat >$units/rehearsal-fault-disk.service <<'UNIT'
[Unit]
Description=Rehearsal fault disk-full
# No default dependencies: cloud-init's last stage comes after the target that wants this.
DefaultDependencies=no
After=cloud-final.service basic.target
Conflicts=shutdown.target

[Service]
Type=oneshot
ExecStart=/usr/sbin/rehearsal-boot fill-disk
StandardOutput=journal+console
UNIT
  ln -s ../rehearsal-fault-disk.service $units/multi-user.target.wants/
fi

if [ "${1:-}" = unified-cgroup ]; then
  # The host's own cgroup tree, writable for its service manager; Docker mounts it read-only.
  mount -o remount,rw /sys/fs/cgroup
fi

# The first process keeps the right time: a service manager with a false one does not work on newer systems.
unset LD_PRELOAD
exec /sbin/init
