#!/usr/bin/env bash
# `make check-system`: what takes longer than `make check` or needs more of the machine. Calls of pip are quiet.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
make=${MAKE:-make}
. tests/system/apt.sh
. tests/system/pythons.sh
. tests/system/timed.sh

timed "  the wheel and the package" $make wheel deb

checked=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for version in 3.11 3.12 3.13; do
    if [ "$version" = "$checked" ]; then
        echo "== Python $version: that of make check"
    elif python=$(find_python "$version"); then
        echo "== the suite on Python $version"
        timed "  the suite on Python $version" $make VENV=".venvs/$version" PYTHON="$python" test
    else
        echo "== Python $version: not installed, left out"
    fi
done

if python=$(find_python 3.10); then
    echo "== the SDK on Python 3.10"
    timed "  the SDK on Python 3.10" $make SDK_PYTHON="$python" test-sdk
else
    echo "== the SDK on Python 3.10: not installed, left out"
fi

install() { # PROGRAM PACKAGE: the package, unless the program is there
    if command -v "$1" >/dev/null || [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        return
    fi
    if ! { apt update && apt install --yes --no-install-recommends "$2"; }; then
        echo "== $2 cannot be installed" >&2
        return 1
    fi
}

packages() {
    # Where a link goes down for real; as another user that test is left out.
    install ip iproute2 || return
    # For systemd-analyze, which checks the units; installing systemd starts nothing.
    install systemd-analyze systemd || true
    # For a look at the package.
    install lintian lintian || true
}

guest() {
    tests/vm/packages.sh && .venv/bin/python -m tests.vm.build
}

tests() {
    local status=0
    # Without the stacks that pytest prints of a test that takes long: a guest does.
    .venv/bin/pytest -q -m system -o faulthandler_timeout=0 || status=$?
    [ "$status" -eq 5 ] || return "$status" # 5: there are none
}

timed "  packages of the system" packages

# A guest that cannot be built fails the tests that need it, and the others run.
echo "== the virtual machine of the tests"
timed "  the virtual machine" guest || echo "== the tests in tests/vm will fail"

echo "== tests marked system"
timed "  tests marked system" tests
