#!/bin/sh
# Runs inside a container of a base image, or of a person's own: adds the rehearsal's own files (mounted at /layer),
# trusts its certificate, and makes cloud-init find its metadata. Lines `fact: NAME VALUE` say what the image has.
set -eu

cp -a /layer/. /
if command -v update-ca-certificates >/dev/null; then
  update-ca-certificates
else
  echo 'fact: lacks update-ca-certificates'
fi
systemctl enable amazon-ssm-agent.service

# No SSH server: hosts are reached through Systems Manager, so there are no host keys to make.
if [ -e /etc/cloud/cloud.cfg ] && ! command -v ssh-keygen >/dev/null; then
  sed -i -E '/^ *- (ssh|ssh[-_]authkey[-_]fingerprints|keys[-_]to[-_]console)$/d' /etc/cloud/cloud.cfg
fi
# cloud-init asks for tokens (IMDSv2) only where the hypervisor says that it is Amazon's, in a file below /sys that no
# container can have. The rehearsal's own file stands in for it; nothing else of cloud-init is touched.
echo ec2e1916-9099-7caf-fd21-012345abcdef >/etc/rehearsal-hypervisor-uuid
for platform in /usr/lib/python3*/*-packages/cloudinit/sources/DataSourceEc2.py; do
  [ -e "$platform" ] || continue
  sed -i 's|"/sys/hypervisor/uuid"|"/etc/rehearsal-hypervisor-uuid"|' "$platform"
  grep -q '"/etc/rehearsal-hypervisor-uuid"' "$platform"
  python3 -m compileall -q "$platform"
done
# On Amazon's platform cloud-init asks for an address by DHCP before it asks for metadata. Here the network gives the
# address and nobody serves DHCP: without a client it goes on at once to its network stage, which finds metadata.
for client in /usr/sbin/dhclient /usr/sbin/dhcpcd /usr/sbin/udhcpc /sbin/dhclient /sbin/dhcpcd /sbin/udhcpc; do
  if [ -e "$client" ] && [ ! -L "${client%/*}" ]; then
    if command -v dpkg-divert >/dev/null; then
      dpkg-divert --quiet --rename --divert "$client.unused" --add "$client"
    else
      mv "$client" "$client.unused"
    fi
  fi
done

# What a wrong clock is made with (the fault clock-skew). Bookworm's cannot leave what measures time alone: sleeping fails.
for library in /usr/lib/*/faketime/libfaketime.so.1; do
  [ -e "$library" ] || continue
  if env LD_PRELOAD="$library" FAKETIME=+1h FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 \
    python3 -c 'import time; time.sleep(0.01)' 2>/dev/null; then
    echo 'fact: clock realtime'
  else
    echo 'fact: clock both'
  fi
done

echo "fact: systemd $(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
if command -v cloud-init >/dev/null; then
  # Older ones say it on stderr.
  echo "fact: cloud-init $(cloud-init --version 2>&1 | sed 's/.* //; s/-.*//')"
fi
