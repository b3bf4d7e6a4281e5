"""Where TLS clients come in: the daemon's certificates, and the handshakes that are under way."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio

from lpt_service.config import Config, TlsConfig
from lpt_service.protocol.errors import LptError
from lpt_service.protocol.text import UTF8_MARK, is_utf16, utc
from lpt_service.server.crowd import Crowd
from lpt_service.server.strangers import StrangerLog
from lpt_service.server.stream import Stream
from lpt_service.server.tls import TlsFailure, TlsStream

HANDSHAKE_TIMEOUT_S: Final = 10.0
# At once. A client needs a few round trips, in which so many others hardly come from elsewhere.
HANDSHAKES_MAX: Final = 512
_MODES: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
# Time for somebody to notice who looks at the log once a month.
EXPIRY_WARNING_DAYS: Final = 45
_DAY_S: Final = 86_400
_NO_CHECK_TIME: Final = 0x20_0000  # X509_V_FLAG_NO_CHECK_TIME, for which the ssl module has no name
_HOW_TO_RENEW: Final = {
    "certificate": "make another one (lptctl cert server)",
    "client_ca": "make another one (lptctl cert init), and certificates of it",
}
_HOW_TO_MAKE: Final = "`lptctl cert` makes certificates; the user lpt must be able to read them"
_log = logging.getLogger(__name__)


class TlsError(LptError):
    """The certificates cannot be used. `problems` has one line for each thing that is wrong, with its path."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class TlsGate:
    """Leads connections through the handshake.

    Attributes:
        context: with the certificates for those who come from now on.
    """

    def __init__(self, strangers: StrangerLog) -> None:
        self.context: ssl.SSLContext | None = None
        self._strangers = strangers
        self._under_way: Crowd[trio.CancelScope] = Crowd()

    async def watch_expiry(self, now_s: Callable[[], float]) -> None:
        """Warn, once a day, while a certificate is about to expire, or is not valid. `now_s`: the time of day."""
        while True:
            if self.context is not None:
                for key, warning in warnings(self.context, now_s()):
                    _log.warning("tls.%s: it %s; %s, then reload", key, warning, _HOW_TO_RENEW[key])
            await trio.sleep(_DAY_S)

    async def lead(self, raw: Stream, peer: str, host: str) -> TlsStream | None:
        """The connection with TLS on it; None, and a line in the log, if that does not come about in time.

        When too many are under way, one is given up for this one: who holds back cannot keep others out. `host`: what
        is counted as one address.

        Resource handling: `raw` is closed unless it is in what this returns.
        """
        assert self.context is not None
        stream = TlsStream(raw, self.context)
        scope = trio.CancelScope(deadline=trio.current_time() + HANDSHAKE_TIMEOUT_S)
        leaving = self._under_way.add(scope, host, HANDSHAKES_MAX)
        if leaving is not None:
            leaving.cancel()
        is_led = False
        try:
            with scope:
                is_led = await self._shake_hands(stream, raw, peer)
            if scope.cancelled_caught:
                in_time = trio.current_time() < scope.deadline
                why = f"{HANDSHAKES_MAX} others came" if in_time else f"{HANDSHAKE_TIMEOUT_S:.0f} s had passed"
                self._complain(peer, f"the handshake was not over when {why}")
        finally:
            self._under_way.discard(scope)
            if not is_led:
                raw.close()
        return stream if is_led else None

    async def _shake_hands(self, stream: TlsStream, raw: Stream, peer: str) -> bool:
        try:
            await stream.handshake()
        except TlsFailure as exc:
            self._complain_of(stream, peer, str(exc))
            with suppress(OSError):
                await raw.finish()  # so that the client reads what it was told
            return False
        except (OSError, trio.ClosedResourceError) as exc:
            self._complain_of(stream, peer, f"the connection broke: {exc}")
            return False
        return True

    def _complain_of(self, stream: TlsStream, peer: str, why: str) -> None:
        """A connection that left without a word, such as a health check, is only counted."""
        if stream.has_heard:
            self._complain(peer, why)
        else:
            self._strangers.left_silently += 1
            _log.debug("no TLS with %s: %s", peer, why)

    def _complain(self, peer: str, why: str) -> None:
        self._strangers.logger(_log).warning("no TLS with %s: %s", peer, why)


def context_of(config: Config) -> ssl.SSLContext | None:
    """What `[tls]` says, if anybody listens for TLS; read from its files anew. Raises TlsError."""
    return load_context(config.tls) if config.has_tls_listener else None


def load_context(settings: TlsConfig) -> ssl.SSLContext:
    """TLS 1.3 with these certificates. Raises TlsError, which names every file that cannot be used."""
    problems: list[str] = []
    certificate = _read(problems, "tls.certificate", settings.certificate, "-----BEGIN CERTIFICATE-----")
    key = _read(problems, "tls.key", settings.key, "PRIVATE KEY-----")
    if key is not None and "ENCRYPTED" in key:
        problems.append(f"tls.key: {settings.key} has a password, for which nobody can be asked; remove it")
    if settings.client_certificate != "none":
        _read(problems, "tls.client_ca", settings.client_ca, "-----BEGIN CERTIFICATE-----")
    if problems or certificate is None or key is None:
        raise TlsError(problems)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # a resumed session would bring the trust of an older configuration with it
    try:
        with _unmarked(settings.certificate) as certificate, _unmarked(settings.key) as key:
            context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise TlsError([f"tls.key: {settings.key} is not the key of {settings.certificate}"]) from exc
        pair = f"{settings.certificate} with {settings.key}"
        raise TlsError([f"tls.certificate: {pair} cannot be used: {exc.reason or exc}"]) from exc
    if settings.client_certificate != "none":
        try:
            with _unmarked(settings.client_ca) as client_ca:
                context.load_verify_locations(client_ca)
        except ssl.SSLError as exc:
            raise TlsError([f"tls.client_ca: {settings.client_ca} cannot be used: {exc.reason or exc}"]) from exc
        context.verify_mode = _MODES[settings.client_certificate]
    return context


class Validity(NamedTuple):
    """From when to when a certificate is valid, as times of day."""

    from_s: float
    until_s: float

    @classmethod
    def of(cls, certificate: Any) -> Validity:
        """That of a certificate as the ssl module gives it."""
        return cls(*(float(ssl.cert_time_to_seconds(certificate[key])) for key in ("notBefore", "notAfter")))

    def days_left(self, now_s: float) -> float:
        """Until it expires; negative after that."""
        return (self.until_s - now_s) / _DAY_S

    def warning(self, now_s: float) -> str | None:
        """The warning that is due at a time of day, if any."""
        if now_s < self.from_s:
            return f"is not valid before {utc(self.from_s)}, and here it is {utc(now_s)}: is this clock wrong?"
        days = self.days_left(now_s)
        if days >= EXPIRY_WARNING_DAYS:
            return None
        return (
            f"has expired, at {utc(self.until_s)}"
            if days < 0
            else f"expires in {days:.0f} days, at {utc(self.until_s)}"
        )


def validity(context: ssl.SSLContext) -> Validity:
    """Of the certificate in a server's context.

    The ssl module tells this of a peer's certificate alone, and of one that is trusted: so a client in memory has a
    look at it, and another one trusts what the first has seen, whatever the time is.
    """
    looking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    looking.check_hostname = False
    looking.verify_mode = ssl.CERT_NONE
    seen = _greet(context, looking).getpeercert(binary_form=True)
    assert seen is not None
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    trusting.load_verify_locations(cadata=seen)
    return Validity.of(_greet(context, trusting).getpeercert())


def warnings(context: ssl.SSLContext, now_s: float) -> Iterator[tuple[str, str]]:
    """What is to be said, and of which setting: the daemon's certificate, and the authorities of its clients."""
    for key, each in (
        ("certificate", validity(context)),
        *(("client_ca", Validity.of(authority)) for authority in context.get_ca_certs()),
    ):
        warning = each.warning(now_s)
        if warning is not None:
            yield key, warning


def _greet(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> ssl.SSLObject:
    """A client that has just seen the server's certificate, in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for end in (client, server):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    client.do_handshake()
    return client


def _read(problems: list[str], key: str, path: str, mark: str) -> str | None:
    """A file's text; None, and a line in `problems`, if it cannot be read or has no `mark`. OpenSSL would not say."""
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        problems.append(f"{key}: {path} cannot be read: {exc.strerror} ({_HOW_TO_MAKE})")
        return None
    if is_utf16(data):
        problems.append(f"{key}: {path} is UTF-16: save it as UTF-8")
        return None
    text = data.decode("ascii", errors="replace")
    if mark not in text:
        problems.append(f"{key}: {path} is not what it should be: a PEM file with {mark.strip('-')}")
        return None
    return text


@contextmanager
def _unmarked(path: str) -> Iterator[str]:
    """The path of a file; if it begins with a byte order mark, of a copy without, in memory: OpenSSL knows no marks."""
    data = Path(path).read_bytes()
    if not data.startswith(UTF8_MARK):
        yield path
        return
    with open(os.memfd_create("lptd"), "wb") as file:
        file.write(data.removeprefix(UTF8_MARK))
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
