"""TLS for clients, without I/O: what they trust and who they are, and what went wrong, in words.

Loaded only for lpts://, so that a program without TLS does not pay for it (and needs no Python that has it).
"""

from __future__ import annotations

import os
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from lpt_client.sockets import RECEIVE_BYTES, TlsFailed, TlsOptions, why
from lpt_service.protocol.text import UTF8_MARK, is_utf16, utc
from lpt_service.protocol.url import split_zone

# Parts of OpenSSL's names for what went wrong → in words, as a client sees it.
_REASONS: Final = {
    "WRONG_VERSION_NUMBER": "no TLS is spoken there: use lpt:// in place of lpts://, or the port that speaks TLS",
    "ALERT_CERTIFICATE_REQUIRED": "the daemon wants a certificate from this client: name one with its key "
    "(LPT_CERTIFICATE and LPT_KEY for lptctl, tls=TlsOptions(certificate=…, key=…) in programs)",
    "ALERT_UNKNOWN_CA": "the daemon does not know the authority of this client's certificate: "
    "use one that its own authority has made (lptctl cert client NAME)",
    "ALERT_CERTIFICATE_EXPIRED": "this client's certificate has expired: have a new one made (lptctl cert client NAME)",
    "ALERT_BAD_CERTIFICATE": "the daemon does not take this client's certificate: its log says why "
    "(not valid yet, by its clock?)",
    "ALERT_UNSUPPORTED_CERTIFICATE": "the daemon does not take this client's certificate: it is not one for clients "
    "(lptctl cert client NAME makes such)",
    "ALERT_ACCESS_DENIED": "the daemon does not let this computer in, or has as many connections as it may have: "
    "its log says which",
    "ALERT_PROTOCOL_VERSION": "there is no version of TLS that both ends speak; lptd wants 1.3",
    "UNSUPPORTED_PROTOCOL": "there is no version of TLS that both ends speak; lptd speaks 1.3",
}
_UNTRUSTED: Final = (
    "the daemon's certificate is of an authority that is not trusted here: name that authority's ca.pem "
    "(LPT_CA for lptctl, tls=TlsOptions(ca=…) in programs)"
)
# X509_V_ERR_… → in words.
_VERIFY_REASONS: Final = {
    9: "the daemon's certificate is not valid yet: compare the clocks of both computers",
    10: "the daemon's certificate has expired: whoever runs it makes a new one (lptctl cert server NAME)",
    18: _UNTRUSTED,
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
}
_OF_TIME: Final = (9, 10)
_WRONG_NAME: Final = (62, 64)


def client_context(options: ssl.SSLContext | TlsOptions | None) -> ssl.SSLContext:
    """What the options say; TLS 1.3. Raises TlsFailed, which names the file that cannot be used."""
    if isinstance(options, ssl.SSLContext):
        return options
    options = TlsOptions() if options is None else options
    with ExitStack() as stack:
        return _load(options, TlsOptions(*(path and stack.enter_context(_readable(path)) for path in options)))


def _load(options: TlsOptions, files: TlsOptions) -> ssl.SSLContext:
    """A context with these files, which go by the names in `options`."""
    try:
        context = ssl.create_default_context(cafile=files.ca)
    except ssl.SSLError as exc:
        raise TlsFailed(f"{options.ca} holds no certificate of an authority: {why(exc)}") from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if files.certificate is None:
        if options.key is not None:
            raise TlsFailed(f"{options.key} is a key without a certificate: name both")
        return context
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except ssl.SSLError as exc:
        pair = f"{options.certificate} with the key {options.key or 'in it'}"
        reason = "they do not belong together" if exc.reason == "KEY_VALUES_MISMATCH" else why(exc)
        raise TlsFailed(f"{pair} cannot be used: {reason}") from exc
    except ValueError as exc:
        raise TlsFailed(f"{options.key or options.certificate}: {exc}") from exc
    return context


@contextmanager
def _readable(path: str | os.PathLike[str]) -> Iterator[str | os.PathLike[str]]:
    """The path of a file that can be read; OpenSSL would not say which one cannot.

    If it begins with a byte order mark, which OpenSSL does not know, that of a copy without, for this user alone.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as exc:
        raise TlsFailed(f"{os.fspath(path)} cannot be read: {why(exc)}") from exc
    if is_utf16(data):
        raise TlsFailed(f"{os.fspath(path)} is UTF-16: save it as UTF-8")
    if not data.startswith(UTF8_MARK):
        yield path
        return
    descriptor, copy = tempfile.mkstemp(suffix=".pem")
    try:
        with open(descriptor, "wb") as file:
            file.write(data[len(UTF8_MARK) :])
        yield copy
    finally:
        os.unlink(copy)


def _no_password() -> str:
    # OpenSSL would ask on the terminal.
    raise ValueError("the key has a password; give an ssl.SSLContext that knows it, or a key without one")


def explain(error: BaseException, host: str) -> str:
    """A failure of TLS in words. `host` is the name by which the daemon was addressed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _WRONG_NAME:
            return (
                f"the daemon's certificate is not for {host}: use a name in the URL that it is for, "
                f"or have one made for this name (lptctl cert server {host})"
            )
        words = _VERIFY_REASONS.get(error.verify_code, f"the daemon's certificate is not good: {error.verify_message}")
        return f"{words} (here it is {utc(time.time())})" if error.verify_code in _OF_TIME else words
    if isinstance(error, ssl.SSLEOFError):
        return "the connection was closed in the midst of TLS's handshake"
    if not isinstance(error, ssl.SSLError):
        return why(error)
    reason = getattr(error, "reason", None) or ""  # Python's own have none
    for part, words in _REASONS.items():
        if part in reason:
            return words
    return f"TLS failed: {reason.replace('_', ' ').lower() or error}"


class TlsPipe:
    """The client's end of TLS, without I/O: ciphertext in and out, plaintext in and out.

    `take_outgoing` is what is to be sent; after a failure, too: the alert that tells the daemon.
    """

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._host = host
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=split_zone(host)[0])

    def shake_hands(self) -> bool:
        """Go on with the handshake; True once it is over, False while more of the daemon's bytes are needed.

        Raises TlsFailed.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as exc:
            raise TlsFailed(explain(exc, self._host)) from exc
        return True

    def feed(self, data: bytes) -> None:
        """Take ciphertext; nothing stands for the end of the stream."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def read(self) -> bytes | None:
        """All plaintext that is here; None if that needs more bytes, nothing at the end. Raises TlsFailed."""
        parts: list[bytes] = []
        while self._incoming.pending or self._incoming.eof:
            try:
                data = self._tls.read(RECEIVE_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLEOFError:
                data = b""  # no goodbye; the conversation knows whether its last frame was whole
            except ssl.SSLError as exc:
                raise TlsFailed(explain(exc, self._host)) from exc
            if not data:
                return b"".join(parts)
            parts.append(data)
        return b"".join(parts) or None

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt."""
        self._tls.write(data)

    def write_goodbye(self) -> None:
        """Say that nothing more comes."""
        with suppress(ssl.SSLError):  # before the handshake is over, or because the daemon's goodbye is not here
            self._tls.unwrap()

    def take_outgoing(self) -> bytes:
        """What is to be sent now."""
        return self._outgoing.read()
