#!/usr/bin/env bash
# Install the servers that some tests start on the loopback address: SLURM, its key service munge, and an SSH server.
# Debian and Ubuntu, as root. Nothing is started here, and the packages' own services are kept from starting.
set -euo pipefail
if command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null && [ -x /usr/sbin/sshd ]; then
  exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "SLURM or an SSH server is not installed: its tests are skipped (this script installs it as root on Debian and Ubuntu)"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge openssh-server; }; then
  echo "SLURM and the SSH server could not be installed: their tests are skipped"
fi
