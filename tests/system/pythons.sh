# To be sourced: finding the Pythons of this machine.
# shellcheck shell=bash

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
