# Package sources of a root file system while it is built, and what of them stays in it. Every host can read what stays, so
# no password does: they are lent for the build. Sourced by base.sh, which sets ROOT and APT.
#
# ETC  where this machine keeps apt's passwords and keys (/etc)

lend_sources() {
  local folder
  cp "$APT/acquire.conf" "$ROOT/etc/apt/apt.conf.d/90rehearsal-acquire"
  [[ ! -s $APT/sources.list ]] || cp "$APT/sources.list" "$ROOT/etc/apt/sources.list"
  [[ ! -s $APT/preferences ]] || cp "$APT/preferences" "$ROOT/etc/apt/preferences.d/rehearsal"
  for folder in auth.conf.d trusted.gpg.d keyrings; do
    [[ ! -d ${ETC:-/etc}/apt/$folder ]] || cp -rL "${ETC:-/etc}/apt/$folder/." "$ROOT/etc/apt/$folder/"
  done
  [[ ! -f ${ETC:-/etc}/apt/auth.conf ]] || cp -L "${ETC:-/etc}/apt/auth.conf" "$ROOT/etc/apt/auth.conf"
}

# What stays names the same places without user and password. debootstrap writes its mirror down, too.
take_back_passwords() {
  rm -rf "$ROOT/etc/apt/auth.conf" "$ROOT/etc/apt/auth.conf.d"
  install -d -m 755 "$ROOT/etc/apt/auth.conf.d"
  cp "$APT/acquire.conf.kept" "$ROOT/etc/apt/apt.conf.d/90rehearsal-acquire"
  if [[ -s $APT/sources.list.kept ]]; then
    cp "$APT/sources.list.kept" "$ROOT/etc/apt/sources.list"
  fi
  rm -rf "$ROOT/var/log/bootstrap.log" "$ROOT/debootstrap"
}
