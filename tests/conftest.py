"""For every test. The SDK's tests run on Python 3.10 with requirements-sdk.lock alone: import no more unguarded."""

import signal

# A shell starts what runs in the background with SIGINT ignored, and children inherit that: Ctrl-C would do nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)

try:
    from hypothesis import settings
except ImportError:  # Python 3.10
    pass
else:
    # The same examples in every run, however slow the machine. Others: pytest --hypothesis-profile=default
    settings.register_profile("check", derandomize=True, deadline=None)
    settings.load_profile("check")
