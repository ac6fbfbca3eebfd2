#!/usr/bin/env bash
# Prints the id of a machine image for the rehearsal: bookworm's, with ansible-core, so that tests and benchmarks boot hosts
# that Ansible can run on at once. The first run installs it (about a minute); Docker's cache and the list of own images
# remember it. `local-cloud image remove ansible-core` forgets it.
#
#   scripts/lib/ansible-image.sh [--docker-name]    the name that Docker knows it by, instead of the id
set -euo pipefail

docker_name=local-cloud-tests/ansible-core
export LOCAL_CLOUD_PROJECT=${LOCAL_CLOUD_PROJECT:-ansible-image}
local-cloud image build bookworm --quiet >&2
base=$(local-cloud image list --format json | jq -r '.subjects[] | select(.name == "bookworm").detail' | sed 's/^built (\(.*\))$/\1/')
# The host's packages come from where the image's own came from, which may be an address of this machine.
DOCKER_BUILDKIT=0 docker build --quiet --network host --tag "$docker_name" - >&2 <<DOCKERFILE
FROM $base
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends ansible-core && apt-get clean
DOCKERFILE
if [ "${1:-}" = --docker-name ]; then
  echo "$docker_name"
else
  local-cloud image add ansible-core --from "$docker_name" --quiet
fi
