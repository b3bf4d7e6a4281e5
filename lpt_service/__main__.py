"""`python -m lpt_service` is `lptd`."""

import signal


def main() -> None:
    """Run lptd, and end this process.

    Ctrl-C ends it without a word, as it ends other programs, until a command says otherwise; Python would show where in
    loading its modules it was.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lpt_service import cli

    cli.main()


if __name__ == "__main__":
    main()
