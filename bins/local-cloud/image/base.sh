#!/usr/bin/env bash
# Builds the root file system of a rehearsal host from Debian packages and imports it as a Docker image.
# Run by `local-cloud up` in a mount namespace of its own, so that no mount outlives it. Lines that start with
# "step: " are shown to the person who waits; everything else goes to the log.
#
# SUITE   Debian suite                      APT     folder with sources.list, acquire.conf and perhaps mirror
# ROOT    empty folder to build in          TAG     tag of the image to import
set -euo pipefail

say() { printf 'step: %s\n' "$*"; }
in_root() { chroot "$ROOT" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }

mirror=()
[[ ! -s $APT/mirror ]] || mapfile -t mirror <"$APT/mirror"

say "unpacking Debian $SUITE (debootstrap)"
debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$ROOT" "${mirror[@]}"

say "taking over this machine's package sources and certificates"
cp "$APT/acquire.conf" "$ROOT/etc/apt/apt.conf.d/90rehearsal-acquire"
[[ ! -s $APT/sources.list ]] || cp "$APT/sources.list" "$ROOT/etc/apt/sources.list"
for folder in auth.conf.d trusted.gpg.d keyrings; do
  [[ ! -d /etc/apt/$folder ]] || cp -rL "/etc/apt/$folder/." "$ROOT/etc/apt/$folder/"
done
shopt -s nullglob
for certificate in /usr/local/share/ca-certificates/*.crt; do
  cp "$certificate" "$ROOT/usr/local/share/ca-certificates/"
done
cp -L /etc/resolv.conf "$ROOT/etc/resolv.conf"
in_root update-ca-certificates

say "installing systemd, cloud-init and what an official cloud image carries"
printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d" # no service starts while the image is built
chmod 755 "$ROOT/usr/sbin/policy-rc.d"
mount -t proc proc "$ROOT/proc"
in_root apt-get -q update
in_root apt-get -q -y --no-install-recommends install \
  systemd systemd-sysv libpam-systemd dbus cloud-init python3 python3-apt \
  apt-utils ca-certificates curl gnupg iproute2 iputils-ping less logrotate netbase nftables procps sudo tzdata

say "settling the image"
# Package timers would take the dpkg lock at boot; real images that do so are rehearsed by a fault, not by chance.
in_root systemctl mask apt-daily.timer apt-daily-upgrade.timer systemd-networkd-wait-online.service
in_root systemctl disable nftables.service
install -d "$ROOT/var/log/journal"
cat >"$ROOT/etc/cloud/cloud.cfg.d/90-rehearsal.cfg" <<'CONFIG'
# The real EC2 datasource. A container has no DMI table that names Amazon, hence strict_id; no disk of its own, hence
# no growpart; an address given by the network before boot, hence no network configuration.
datasource_list: [Ec2, None]
datasource:
  Ec2:
    strict_id: false
    metadata_urls: ["http://169.254.169.254"]
    max_wait: 60
    timeout: 10
locale: C.UTF-8
growpart: {mode: "off"}
resize_rootfs: false
network: {config: disabled}
apt: {preserve_sources_list: true}
manage_etc_hosts: false
CONFIG
# No SSH server: hosts are reached through Systems Manager, so there are no host keys to make.
sed -i '/^ - ssh$/d' "$ROOT/etc/cloud/cloud.cfg"
# cloud-init asks for tokens (IMDSv2) only where the hypervisor says that it is Amazon's, in a file below /sys that no
# container can have. The rehearsal's own file stands in for it; nothing else of cloud-init is touched.
platform=$ROOT/usr/lib/python3/dist-packages/cloudinit/sources/DataSourceEc2.py
sed -i 's|"/sys/hypervisor/uuid"|"/etc/rehearsal-hypervisor-uuid"|' "$platform"
grep -q '"/etc/rehearsal-hypervisor-uuid"' "$platform"
echo ec2e1916-9099-7caf-fd21-012345abcdef >"$ROOT/etc/rehearsal-hypervisor-uuid"
# On Amazon's platform cloud-init asks for an address by DHCP before it asks for metadata. Here the network gives the
# address and nobody serves DHCP: without a client it goes on at once to its network stage, which finds metadata.
in_root dpkg-divert --quiet --rename --divert /usr/sbin/dhclient.unused --add /usr/sbin/dhclient
in_root apt-get clean
umount "$ROOT/proc"
rm -rf "$ROOT"/var/lib/apt/lists/* "$ROOT/usr/sbin/policy-rc.d" "$ROOT/etc/hostname" "$ROOT/var/cache/apt"/*.bin
: >"$ROOT/etc/machine-id" # empty: every host makes its own
: >"$ROOT/etc/resolv.conf"

say "importing the image"
tar -C "$ROOT" --numeric-owner -c . | docker import --change 'CMD ["/sbin/init"]' - "$TAG"
