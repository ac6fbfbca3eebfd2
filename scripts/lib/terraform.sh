# shellcheck shell=bash
# Sourced by setup.sh: Terraform.

# shellcheck source=provider.sh
. "$repository/scripts/lib/provider.sh"

# Terraform, and where its provider comes from when the public registry cannot be reached.
terraform_tool() {
  local version=1.11.4 archive
  if ! command -v terraform >/dev/null; then
    packages ca-certificates curl unzip
    archive=terraform_${version}_linux_$(dpkg --print-architecture).zip
    mkdir -p "$cache/bin"
    quietly "$state/logs/terraform.log" "installing Terraform $version (or put Terraform >= 1.11 on PATH yourself)" \
      download_terraform "$version" "$archive"
  fi
  packages ca-certificates curl
  provider_mirror anew
}

# download_terraform VERSION ARCHIVE: from HashiCorp's release server, its checksum verified, into the cache folder.
download_terraform() {
  local folder status=0 base=https://releases.hashicorp.com/terraform/$1 sums=terraform_$1_SHA256SUMS
  folder=$(mktemp -d)
  curl --connect-timeout 15 -sSf --output-dir "$folder" -O "$base/$2" -O "$base/$sums" &&
    (cd "$folder" && grep " $2\$" "$sums" | sha256sum -c - && unzip -o "$2" terraform -d "$cache/bin") || status=$?
  rm -rf "$folder"
  return "$status"
}
