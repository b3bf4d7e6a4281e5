"""`python -m lpt_service` is `lptd`."""

import signal

from lpt_service.protocol.libraries import missing_library


def main() -> None:
    """Run lptd, and end this process.

    Ctrl-C ends it without a word, as it ends other programs, until a command says otherwise; Python would show where in
    loading its modules it was.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from lpt_service import cli

        cli.main()
    except ImportError as exc:
        said = missing_library(exc, "daemon")
        if said is None:
            raise
        from lpt_service.ending import EXIT_FAILED, complain

        complain(said)
        raise SystemExit(EXIT_FAILED) from exc


if __name__ == "__main__":
    main()
