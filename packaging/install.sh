#!/bin/sh
# Installs Brigade @VERSION@ for this user: curl -fsSL @DOWNLOADS@/install.sh | sh
#
# Needs no root. What it downloads is checked against SHA256SUMS before anything is replaced.
#   BRIGADE_FLAVOR   cuda or vulkan, on Linux with x86-64 [default: the CPU; on a Mac Metal]
#   BRIGADE_PREFIX   where to: PREFIX/bin and PREFIX/lib/brigade [default: ~/.local]
#   BRIGADE_URL      where from [default: @DOWNLOADS@]
set -eu

fail() {
  echo "install: $*" >&2
  exit 1
}

fetch() { # URL FILE
  if command -v curl >/dev/null; then
    curl --fail --silent --show-error --location --retry 3 --output "$2" "$1"
  elif command -v wget >/dev/null; then
    wget --quiet --output-document="$2" "$1"
  else
    fail "neither curl nor wget is here"
  fi || fail "cannot download $1"
}

sha256() { # FILE
  if command -v sha256sum >/dev/null; then
    sha256sum "$1"
  else
    shasum -a 256 "$1"
  fi | cut -d ' ' -f 1
}

platform() {
  system=$(uname -s) machine=$(uname -m)
  case "$system $machine" in
    "Darwin arm64") echo macos-arm64 ;;
    "Darwin x86_64") fail "there is no build for Macs with Intel's processors: build it from source" ;;
    "Linux x86_64") echo linux-x86_64 ;;
    "Linux aarch64" | "Linux arm64") echo linux-arm64 ;;
    *) fail "there is no build for $system on $machine: build it from source" ;;
  esac
}

# In a function, so that half a download of this script does nothing.
main() {
  url=${BRIGADE_URL:-@DOWNLOADS@}
  prefix=${BRIGADE_PREFIX:-$HOME/.local}
  name=brigade-@VERSION@-$(platform)${BRIGADE_FLAVOR:+-$BRIGADE_FLAVOR}

  mkdir -p "$prefix/bin" "$prefix/lib"
  work=$(mktemp -d "$prefix/lib/.brigade-install.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 1' HUP INT TERM

  fetch "$url/SHA256SUMS" "$work/SHA256SUMS"
  wanted=$(sed -n "s/^\([0-9a-f]\{64\}\)  $name\.tar\.gz\$/\1/p" "$work/SHA256SUMS")
  [ -n "$wanted" ] || fail "the release has no $name"
  echo "install: downloading $name" >&2
  fetch "$url/$name.tar.gz" "$work/archive"
  found=$(sha256 "$work/archive")
  [ "$found" = "$wanted" ] || fail "$name.tar.gz is damaged: its SHA-256 is $found, not $wanted"

  tar -xzf "$work/archive" -C "$work"
  "$work/$name/brigade" --version >/dev/null || fail "$name does not run on this machine"

  # The old one is replaced only now; what runs keeps the files that it has open.
  [ ! -e "$prefix/lib/brigade" ] || mv "$prefix/lib/brigade" "$work/old"
  mv "$work/$name" "$prefix/lib/brigade"
  ln -sf ../lib/brigade/brigade "$prefix/bin/brigade"
  echo "install: $("$prefix/bin/brigade" --version) is at $prefix/bin/brigade" >&2
  case ":$PATH:" in
    *":$prefix/bin:"*) ;;
    *) echo "install: add it to your PATH: export PATH=\"$prefix/bin:\$PATH\"" >&2 ;;
  esac
}

main
