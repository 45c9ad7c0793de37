#!/bin/sh
# Install Overflight from this archive, without a network:  sudo ./install.sh   or   ./install.sh --prefix ~/overflight
# Remove it:                                                sudo ./install.sh --uninstall
# Running it again changes nothing; a newer archive is installed next to the old one and switched to in one step.
# PYTHON=python3.12 chooses another Python. Flights and engines in /var/lib/overflight are never touched.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
prefix=/opt/overflight
bin=/usr/local/bin
python=${PYTHON:-python3}
uninstall=no

die() { echo "install.sh: $1" >&2; exit "${2:-1}"; }

while [ $# -gt 0 ]; do
  case $1 in
    --prefix) [ $# -gt 1 ] || die "--prefix needs a folder" 2; prefix=$2; bin=$2/bin; shift 2 ;;
    --uninstall) uninstall=yes; shift ;;
    -h | --help) sed -n '2,5s/^# //p' "$0"; exit 0 ;;
    *) echo "install.sh: $1 unknown option; see --help" >&2; exit 2 ;;
  esac
done
case $prefix in /*) ;; *) prefix=$PWD/$prefix; bin=$prefix/bin ;; esac
case $prefix in / | /usr | /opt | /home | /etc | /var | "$HOME") die "$prefix is a system folder; choose a folder below it" ;; esac

if [ "$uninstall" = yes ]; then
  if [ -x "$prefix/venv/bin/overflight" ] && [ "$bin" = /usr/local/bin ]; then
    "$prefix/venv/bin/overflight" service remove || true
  fi
  if [ "$(readlink "$bin/overflight" 2> /dev/null || true)" = "$prefix/venv/bin/overflight" ]; then rm -f "$bin/overflight"; fi
  # Delete only what an installation made: the prefix may hold other files.
  rm -rf "$prefix/versions" "$prefix/venv"
  rmdir "$prefix/bin" "$prefix" 2> /dev/null || true
  echo "removed; flights and engines in /var/lib/overflight are kept"
  exit 0
fi

machine=$(cat "$here/MACHINE")
[ "$(uname -m)" = "$machine" ] || die "this archive is for $machine, this machine is $(uname -m)" 3
command -v "$python" > /dev/null || die "no $python here; sudo apt install python3" 3
abi=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
[ -f "$here/$abi.txt" ] || die "this archive holds wheels for $(cd "$here" && echo cp*.txt), $python is $abi; set PYTHON=" 3
(cd "$here" && sha256sum --check --quiet --strict SHA256SUMS) || die "the archive is damaged; copy it again"

mkdir -p "$prefix/versions" "$bin" 2> /dev/null || die "$prefix cannot be written; run it with sudo, or with --prefix ~/overflight" 3
version=$(sha256sum "$here/SHA256SUMS" | cut -c1-12)-$abi
place=$prefix/versions/$version

if [ ! -f "$place/complete" ]; then
  rm -rf "$place"
  # On a board the system's packages stay visible, so that JetPack's TensorRT and OpenCV (with GStreamer) are used.
  system=""
  if [ -f /etc/nv_tegra_release ]; then system=--system-site-packages; fi
  # The archive contains pip: the board needs none.
  "$python" -m venv --without-pip $system "$place"
  pip=$(ls "$here"/wheels/pip-*.whl)
  (
    cd "$here"
    # --ignore-installed: system packages may change with apt, so everything is installed into this folder.
    PYTHONPATH=$pip xargs "$place/bin/python" -m pip install \
      --no-index --no-deps --ignore-installed --no-cache-dir --disable-pip-version-check --quiet --root-user-action=ignore < "$abi.txt"
  )
  "$place/bin/overflight" --version > /dev/null || die "the installation does not start; $place is kept for inspection"
  touch "$place/complete"
fi

previous=$(readlink "$prefix/venv" 2> /dev/null || true)
# Switch in one step: a service that restarts now finds either the old version or the new one.
ln -sfn "versions/$version" "$prefix/venv.new"
mv -Tf "$prefix/venv.new" "$prefix/venv"
ln -sfn "$prefix/venv/bin/overflight" "$bin/overflight"
# Keep the previous version: a running flight imports from it.
for old in "$prefix"/versions/*; do
  case $old in "$place" | "$prefix/$previous") ;; *) rm -rf "$old" ;; esac
done
echo "overflight $("$bin/overflight" --version) in $prefix, $("$python" --version); next: overflight doctor"
