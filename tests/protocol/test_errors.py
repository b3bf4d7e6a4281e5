"""The tree of errors, and what they say."""

import pytest

from lpt_service.protocol import errors
from lpt_service.protocol.errors import LptError, PortError, PortGoneError, RequestError, UrlError
from lpt_service.protocol.status import Status

TREE = {
    "RequestError": "LptError",
    "ConversationError": "LptError",
    "UrlError": "LptError",
    "PortError": "LptError",
    "PortGoneError": "PortError",
}


def test_the_tree_is_the_one_drawn() -> None:
    classes = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    found = {name: value.__bases__[0].__name__ for name, value in classes.items() if issubclass(value, LptError)}
    assert found == TREE | {"LptError": "Exception"}
    lines = [line.strip(" ├└─│") for line in (errors.__doc__ or "").splitlines() if line.startswith("     ")]
    assert [line.split()[0] for line in lines] == list(TREE)


def test_a_bad_address_is_also_a_value_error() -> None:
    assert issubclass(UrlError, ValueError)


def test_a_port_that_is_gone_can_be_told_from_an_access_that_failed() -> None:
    assert issubclass(PortGoneError, PortError)
    with pytest.raises(PortError):
        raise PortGoneError("unplugged")


def test_a_request_error_says_its_status_in_words() -> None:
    error = RequestError(Status.STATUS_ACCESS_DENIED, "allocate it first")
    assert (error.status, error.status_name, error.detail) == (0xC0000022, "STATUS_ACCESS_DENIED", "allocate it first")
    assert str(error) == "STATUS_ACCESS_DENIED: allocate it first"
    assert str(RequestError(Status.STATUS_CANCELLED)) == "STATUS_CANCELLED"
    assert str(RequestError(0xC00002B6, "gone")) == "0xC00002B6: gone"
