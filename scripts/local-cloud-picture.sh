#!/usr/bin/env bash
# Renews the picture of the rehearsal cloud's page, docs/images/local-cloud-web.png, from a real cloud with a real host.
#
#   scripts/local-cloud-picture.sh
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

picture=$PWD/docs/images/local-cloud-web.png
LOCAL_CLOUD_HOSTS=fault LOCAL_CLOUD_SCREENSHOT=$picture \
  cargo test --locked -p local-cloud --features hosts --test hosts -- --nocapture
size=$(stat -c %s "$picture")
[ "$size" -le 153600 ] || {
  echo "error: $picture has $size bytes, at most 153600 are wanted" >&2
  exit 1
}
