"""Every error of the project, and what becomes of the one who meets it.

    LptError
     ├─ RequestError            one request failed with a status; the conversation goes on
     ├─ ConversationError       the peer broke the protocol; the conversation is over
     ├─ UrlError                an address that names no daemon
     └─ PortError               the hardware failed a register access (becomes STATUS_IO_DEVICE_ERROR)
         └─ PortGoneError       the port is not there any more (starts its removal)

The clients add their own below LptError (`lpt_client.errors`), the configuration its own (`lpt_service.config`).
"""

from lpt_service.protocol.status import Status


class LptError(Exception):
    """The base of every error that this project raises on purpose."""


class RequestError(LptError):
    """A request ended with a status that is an error.

    `status` is the NTSTATUS (an int: a newer peer may send one that `Status` does not know), `detail` says which field
    was wrong and what its limit is.
    """

    def __init__(self, status: int, detail: str = "") -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail

    @property
    def status_name(self) -> str:
        """The status in words, for example STATUS_ACCESS_DENIED."""
        return Status.name_of(self.status)

    def __str__(self) -> str:
        return f"{self.status_name}: {self.detail}" if self.detail else self.status_name


class ConversationError(LptError):
    """The bytes received are no conversation of this protocol: nothing that follows can be trusted.

    The text is what the `closing` notification tells the peer.
    """


class UrlError(LptError, ValueError):
    """A daemon's address could not be understood; the text names the part and shows a good one."""


class PortError(LptError):
    """A register access failed. The text says what to do, as far as that is known."""


class PortGoneError(PortError):
    """The port went away (unplugged, driver unloaded); it will not come back under this descriptor."""
