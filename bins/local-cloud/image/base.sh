#!/usr/bin/env bash
# Builds the root file system of a rehearsal host from Debian packages and imports it as a Docker image.
# Run by `local-cloud` in a mount namespace of its own, so that no mount outlives it. Lines that start with
# "step: " are shown to the person who waits; everything else goes to the log.
#
# SUITE   Debian suite                      APT     folder with sources.list and acquire.conf (of each also a `.kept` for
#                                                   hosts), sources.sh, perhaps mirror, preferences
# ROOT    empty folder to build in          TAG     tag of the image to import
# PACKAGES  what goes in beside the common packages; a `package/suite` takes that suite's version
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=sources.sh
. "$APT/sources.sh"

say() { printf 'step: %s\n' "$*"; }
in_root() { chroot "$ROOT" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }

# In memory where there is plenty: package tools write every file through to the disk, which takes longer than unpacking.
available=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
if ((available > 4 * 1024 * 1024)); then
  mount -t tmpfs -o size=2g,mode=755 rehearsal-image "$ROOT"
fi

mirror=()
[[ ! -s $APT/mirror ]] || mapfile -t mirror <"$APT/mirror"

say "unpacking Debian $SUITE (debootstrap)"
debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$ROOT" "${mirror[@]}"

say "taking over this machine's package sources and certificates"
lend_sources
shopt -s nullglob
for certificate in /usr/local/share/ca-certificates/*.crt; do
  cp "$certificate" "$ROOT/usr/local/share/ca-certificates/"
done
cp -L /etc/resolv.conf "$ROOT/etc/resolv.conf"
in_root update-ca-certificates

say "installing systemd, cloud-init and what an official cloud image carries"
printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d" # no service starts while the image is built
chmod 755 "$ROOT/usr/sbin/policy-rc.d"
echo force-unsafe-io >"$ROOT/etc/dpkg/dpkg.cfg.d/rehearsal-build" # a broken build is thrown away whole
mount -t proc proc "$ROOT/proc"
in_root apt-get -q update
# shellcheck disable=SC2086 # a list of words
in_root apt-get -q -y --no-install-recommends install \
  systemd systemd-sysv libpam-systemd dbus $PACKAGES python3 python3-apt \
  apt-utils ca-certificates curl gnupg iproute2 iputils-ping less logrotate netbase nftables procps sudo tzdata \
  libfaketime

say "settling the image"
# Package timers would take the dpkg lock at boot; real images that do so are rehearsed by a fault, not by chance.
in_root systemctl mask apt-daily.timer apt-daily-upgrade.timer systemd-networkd-wait-online.service
in_root systemctl disable nftables.service
install -d "$ROOT/var/log/journal"
in_root apt-get clean
take_back_passwords
umount "$ROOT/proc"
rm -rf "$ROOT"/var/lib/apt/lists/* "$ROOT/usr/sbin/policy-rc.d" "$ROOT/etc/hostname" "$ROOT/var/cache/apt"/*.bin \
  "$ROOT/etc/dpkg/dpkg.cfg.d/rehearsal-build"
: >"$ROOT/etc/machine-id" # empty: every host makes its own
: >"$ROOT/etc/resolv.conf"

say "importing the image"
tar -C "$ROOT" --numeric-owner -c . | docker import --change 'CMD ["/sbin/init"]' - "$TAG"
