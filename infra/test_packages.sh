#!/usr/bin/env bash
# Installs what tests on a real Slurm, in a real browser and in QGIS need, on Debian and as root.
#
# Elsewhere, or where nothing can be installed, it says so and succeeds: those tests skip then.
set -uo pipefail

packages=(chromium munge python3-qgis slurm-wlm)

missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null |
    grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

install() {
  export DEBIAN_FRONTEND=noninteractive
  timeout 120 apt-get -qq update &&
    timeout 600 apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
}

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null || ! install; then
  echo "test_packages.sh: not installed: ${missing[*]}; the tests that need them will skip" >&2
fi
exit 0
