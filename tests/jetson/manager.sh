#!/bin/bash
# Start a real systemd as process 1 of its own namespaces, over a throw-away copy of this file system.
# Usage (as root): manager.sh SCRATCH
# Prints the process id of the manager; `nsenter -t PID -a -r systemctl ...` talks to it; killing it ends everything.
set -euo pipefail
scratch=$(realpath "$1")
cat > "$scratch/boot.sh" <<'BOOT'
set -euo pipefail
scratch=$1
mount --make-rprivate /
# Nothing that systemd's boot cleans, sets or writes may reach the machine below.
mount -t tmpfs overflight-test "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
root=$scratch/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs run "$root/run"
mount --make-rshared "$root" # as the root of a real system is: services receive their credentials by it
etc=$root/etc/systemd/system
rm -rf "$etc"; mkdir -p "$etc"
for name in systemd-udevd systemd-udev-trigger systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-sysctl \
  systemd-modules-load systemd-remount-fs systemd-timesyncd systemd-random-seed systemd-hwdb-update systemd-binfmt \
  systemd-logind systemd-networkd networking systemd-tmpfiles-setup systemd-tmpfiles-setup-dev systemd-pstore \
  systemd-machine-id-commit systemd-firstboot systemd-sysusers systemd-update-utmp kmod-static-nodes ldconfig \
  sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
  dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount; do
  case $name in *.*) ;; *) name=$name.service ;; esac
  ln -s /dev/null "$etc/$name"
done
export container=overflight-test
exec chroot "$root" /lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=no
BOOT
setsid unshare --mount --pid --fork --kill-child --uts --ipc --cgroup bash "$scratch/boot.sh" "$scratch" \
  < /dev/null > "$scratch.log" 2>&1 &
launcher=$!
for _ in $(seq 100); do
  manager=$(pgrep -P "$launcher" -x systemd || true)
  if [ -n "$manager" ] && nsenter -t "$manager" -a -r systemctl is-system-running > /dev/null 2>&1; then break; fi
  if [ -n "$manager" ] && nsenter -t "$manager" -a -r systemctl show basic.target > /dev/null 2>&1; then break; fi
  kill -0 "$launcher" 2> /dev/null || { cat "$scratch.log" >&2; exit 1; }
  sleep 0.1
done
echo "$manager"
