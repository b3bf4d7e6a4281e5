#!/usr/bin/env bash
# `make check-system`: what takes longer than `make check` or needs more of the machine. Calls of pip are quiet.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
make=${MAKE:-make}
. tests/system/apt.sh

find_python() { # VERSION → a command that runs it, from the path or pyenv's folder
    local python
    for python in "python$1" "${HOME:-}/.pyenv/versions/$1".*/bin/python; do
        if [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$1" ]; then
            echo "$python"
            return
        fi
    done
    return 1
}

checked=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for version in 3.11 3.12 3.13; do
    if [ "$version" = "$checked" ]; then
        echo "== Python $version: that of make check"
    elif python=$(find_python "$version"); then
        echo "== the suite on Python $version"
        $make VENV=".venvs/$version" PYTHON="$python" test
    else
        echo "== Python $version: not installed, left out"
    fi
done

# The SDK as a lab PC has it: the wheel, an older Python, nothing of the daemon's; the daemon runs beside it.
if ! python=$(find_python 3.10); then
    echo "== the SDK on Python 3.10: not installed, left out"
elif [ ! -d tests/clients ]; then
    echo "== the SDK on Python 3.10: no tests yet"
else
    echo "== the SDK on Python 3.10"
    sdk=.venvs/sdk
    pip="$sdk/bin/python -m pip --disable-pip-version-check --no-input -qq"
    if [ ! -e $sdk/.ready ] || [ requirements-sdk.lock -nt $sdk/.ready ]; then
        "$python" -m venv --clear $sdk
        $pip install --require-hashes --no-deps -r requirements-sdk.lock
        touch $sdk/.ready
    fi
    $pip install --no-deps --force-reinstall dist/*.whl
    LPTD=$PWD/.venv/bin/lptd $sdk/bin/pytest -q tests/clients
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

# Where a link goes down for real; as another user that test is left out.
install ip iproute2
# For systemd-analyze, which checks the units; installing systemd starts nothing.
install systemd-analyze systemd || true
# For a look at the package.
install lintian lintian || true

# A guest that cannot be built fails the tests that need it, and the others run.
echo "== the virtual machine of the tests"
tests/vm/packages.sh && .venv/bin/python -m tests.vm.build || echo "== the tests in tests/vm will fail"

echo "== tests marked system"
status=0
# Without the stacks that pytest prints of a test that takes long: a guest does.
.venv/bin/pytest -q -m system -o faulthandler_timeout=0 || status=$?
[ "$status" -eq 0 ] || [ "$status" -eq 5 ] || exit "$status" # 5: there are none
