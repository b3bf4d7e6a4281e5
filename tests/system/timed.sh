# To be sourced: what takes how long.
# shellcheck shell=bash

timed() { # NAME COMMAND…: run it, and note in the file $TIMES, if that is set, how long it took and how it ended
    local name=$1 begun=$SECONDS status=0
    shift
    "$@" || status=$?
    [ -z "${TIMES:-}" ] || printf '%s\t%d\t%d\n' "$name" $((SECONDS - begun)) "$status" >>"$TIMES"
    return "$status"
}

print_times() { # what is noted in $TIMES, as a table
    local name seconds status
    echo "== what took how long"
    while IFS=$'\t' read -r name seconds status; do
        [ "$status" -eq 0 ] && status="" || status="  failed ($status)"
        printf '%-36s %5d s%s\n' "$name" "$seconds" "$status"
    done <"$TIMES"
}
