#!/usr/bin/env bash
# Installs what tests/vm needs of Debian and is not there. Fails, and says what is missing, where that cannot be done.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../system/apt.sh"

if ! command -v apt-get >/dev/null; then
    echo "tests/vm needs Debian: there is no apt-get on this machine" >&2
    exit 1
fi

find_missing() { # sets `missing`; the headers are those of the kernel that the guest gets
    local kernel package
    missing=()
    kernel=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: linux-image-//p')
    for package in qemu-system-x86 mmdebstrap e2fsprogs kmod cpio make "linux-headers-${kernel:-amd64}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
}

find_missing
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "tests/vm needs packages; as root: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi

apt update
find_missing
echo "== installing ${missing[*]}"
apt install --yes --no-install-recommends "${missing[@]}"
