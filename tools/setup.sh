#!/bin/sh
# Make what `make demo` and `make test` need: system packages (through sudo when not root) and .venv.
#
#   tools/setup.sh demo     what gpuprov itself needs, and an SSH server for the rehearsal fleet
#   tools/setup.sh test     that, and the tools of the test suite
#
# Does nothing, quickly, when everything is there.
set -eu
cd "$(dirname "$0")/.."
purpose=${1:?demo or test}

say() { printf 'setup: %s\n' "$*"; }
die() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

# quietly WHAT COMMAND...: its output is shown only when it fails, and then only the end of it
quietly() {
  what=$1
  shift
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1 </dev/null; then
    tail -n 6 "$log" >&2
    rm -f "$log"
    die "$what failed; what it said is above"
  fi
  rm -f "$log"
}

as_root=
if [ "$(id -u)" != 0 ]; then
  have sudo || die "the rehearsal fleet needs root, and there is no sudo: run make as root"
  as_root="sudo --preserve-env=http_proxy,https_proxy,no_proxy env PYTHONDONTWRITEBYTECODE=1"
fi
[ -w . ] || die "$(id -un) cannot write to $PWD: clone the repository to a folder of your own"
need_gb=4
if [ ! -e .venv/.stamp ]; then # here and where the rehearsal fleet lives
  free_gb=$(df -Pk . /var/lib | awk 'NR > 1 && (NR == 2 || $4 < least) { least = $4 } END { print int(least / 1e6) }')
  [ "$free_gb" -ge "$need_gb" ] ||
    die "needs $need_gb GB free in $PWD and in /var/lib, there are $free_gb: free some, or clone elsewhere"
fi

# What root left in a folder of ours, running make there, is ours again.
if [ -n "$as_root" ] && [ -O . ] && [ -n "$(find . ! -user "$(id -u)" -print -quit 2>/dev/null)" ]; then
  $as_root chown -hR "$(id -u):$(id -g)" .
fi

find_python() {
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if have "$name" && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      command -v "$name"
      return
    fi
  done
}

# The system's packages, all of them with one apt-get.
missing=
needs() { # PROGRAM PACKAGE
  have "$1" || missing="$missing $2"
}
python=$(find_python)
if [ -z "$python" ]; then
  missing="$missing python3 python3-venv"
elif [ ! -x .venv/bin/python ] && ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
  missing="$missing $(basename "$python")-venv"
fi
needs unshare util-linux
needs ip iproute2
needs ssh openssh-client
if [ "$purpose" = test ]; then # what hosts may look like, and a browser to look at reports
  needs sudo sudo
  needs tcsh tcsh
  needs fish fish
  needs zsh zsh
  needs ksh ksh
  needs lsattr e2fsprogs
  needs strace strace
  needs cc "gcc libc6-dev" # the double of the NVIDIA driver's library
  needs apt-ftparchive apt-utils # package repositories of both kinds
  needs gpg gnupg
  needs rpmbuild rpm
  needs createrepo_c createrepo-c
  needs dnf dnf
  [ -e /etc/dnf/plugins/versionlock.conf ] || missing="$missing dnf-plugins-core"
  needs modinfo kmod
  needs cc gcc # the simulated NVML
  [ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
  needs chromium chromium
  needs systemd-nspawn systemd-container
  needs debootstrap debootstrap
fi
if [ -n "$missing" ]; then
  have apt-get || die "needs$missing, and only apt-get is known here: install them yourself, then run make again"
  say "installing$missing"
  quietly "apt-get update" $as_root apt-get -qq update
  # shellcheck disable=SC2086
  quietly "apt-get install$missing" $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends $missing
  [ -n "$python" ] || python=$(find_python)
  [ -n "$python" ] || die "needs Python 3.11 or newer, this system has $(python3 -V 2>&1): use Debian 12 or Ubuntu 24.04"
fi

locks="-r requirements/build.txt -r requirements/gpuprov.txt"
[ "$purpose" = demo ] || locks="$locks -r requirements/dev.txt"
inputs="$("$python" -V) in $PWD, $(cat requirements/*.txt pyproject.toml | cksum)"
stamp=$(cat .venv/.stamp 2>/dev/null || true)
if [ "$stamp" != "$purpose: $inputs" ] && [ "$stamp" != "test: $inputs" ]; then # what tests need has all of it
  say "making .venv with locked dependencies"
  .venv/bin/python -c '' 2>/dev/null || quietly "making .venv" "$python" -m venv --clear .venv
  # shellcheck disable=SC2086
  quietly "pip install $locks" .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --require-hashes --only-binary=:all: $locks
  quietly "pip install --editable ." .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --no-deps --no-build-isolation --editable .
  printf '%s\n' "$purpose: $inputs" >.venv/.stamp
fi

have sshd || $as_root .venv/bin/gpuprov lab prepare
if [ "$purpose" = test ] && [ ! -d /var/cache/gpuprov/booted/bookworm-1 ]; then # else the first test that needs it does
  $as_root .venv/bin/gpuprov lab prepare --booted || say "without it, tests of booted hosts are skipped or fail"
fi
