"""Addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpt_service.protocol.errors import UrlError
from lpt_service.protocol.url import DEFAULT_URL, TCP, TLS, UNIX, Url, lacks_zone


@pytest.mark.parametrize(
    ("text", "url"),
    [
        # those of the contract
        ("lpt://host:5378/LPT1", Url(TCP, "host", 5378, "", "LPT1")),
        ("lpts://host:5378/LPT1", Url(TLS, "host", 5378, "", "LPT1")),
        ("lpt+unix:///run/lptd/lptd.sock#LPT1", Url(UNIX, path="/run/lptd/lptd.sock", port_name="LPT1")),
        # what may be left out
        ("lpt://host", Url(TCP, "host", 5378)),
        ("lpt://host/", Url(TCP, "host", 5378)),
        ("lpt://host:1/", Url(TCP, "host", 1)),
        ("lpt://host:/LPT1", Url(TCP, "host", 5378, "", "LPT1")),
        ("lpt+unix:///run/lptd/lptd.sock", Url(UNIX, path="/run/lptd/lptd.sock")),
        # port 0: any free one, for a listener
        ("lpt://127.0.0.1:0", Url(TCP, "127.0.0.1", 0)),
        # hosts
        ("lpt://[::1]:40123/LPT1", Url(TCP, "::1", 40123, "", "LPT1")),
        ("lpt://[2001:db8::7]/LPT1", Url(TCP, "2001:db8::7", 5378, "", "LPT1")),
        ("lpt://Lab-PC.example:5378/LPT1", Url(TCP, "lab-pc.example", 5378, "", "LPT1")),
        # names
        ("LPT://host/lpt1/", Url(TCP, "host", 5378, "", "lpt1")),
        ("lpt://host/EEG%20trigger", Url(TCP, "host", 5378, "", "EEG trigger")),
        ("lpt+unix:///tmp/a%23b%3F.sock#L%C3%BCfter", Url(UNIX, path="/tmp/a#b?.sock", port_name="Lüfter")),
        # addresses of one link
        ("lpt://[fe80::1%eth0]:5378", Url(TCP, "fe80::1%eth0", 5378)),
        ("lpt://[FE80::1%Eth0]/LPT1", Url(TCP, "fe80::1%Eth0", 5378, "", "LPT1")),
        ("lpts://[fe80::1%25eth0]:1", Url(TLS, "fe80::1%eth0", 1)),
        ("lpt://[fe80::1%2]", Url(TCP, "fe80::1%2", 5378)),
        ("lpt://[fe80::1%25]", Url(TCP, "fe80::1%25", 5378)),
        # a path that is not UTF-8, as the system gives it and as a URL shows it
        ("lpt+unix:///tmp/caf\udce9", Url(UNIX, path="/tmp/caf\udce9")),
        ("lpt+unix:///tmp/caf%E9", Url(UNIX, path="/tmp/caf\udce9")),
        ("lpt://host/caf\udce9", Url(TCP, "host", 5378, "", "caf\udce9")),
    ],
)
def test_parse(text: str, url: Url) -> None:
    assert Url.parse(text) == url
    assert Url.parse(str(url)) == url


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "unknown scheme ''"),
        ("host", "unknown scheme ''"),
        ("host:5378", "unknown scheme 'host'"),
        ("http://host/LPT1", "unknown scheme 'http'"),
        ("lpt:host/LPT1", "no host"),
        ("lpt:///LPT1", "no host"),
        ("lpt://:5378/LPT1", "no host"),
        ("lpt://host:port/LPT1", "'port'"),
        ("lpt://host:65536/LPT1", "0-65535"),
        ("lpt://host:-1/LPT1", "'-1'"),
        ("lpt://[::1/LPT1", "IPv6"),
        ("lpt://user@host/LPT1", "no user, password or query"),
        ("lpt://user:secret@host/LPT1", "no user, password or query"),
        ("lpt://host/LPT1?token=secret", "no user, password or query"),
        ("lpt://[fe80::1%]:1", ""),
        ("lpt://lab%25eth0:1", "% stands between an IPv6 address and its interface"),
        ("lpt://192.0.2.1%eth0:1", "% stands between an IPv6 address and its interface"),
        ("lpt+unix:///run/a%00b", "no path has a zero byte"),
        ("lpt+unix:///run/lptd/lptd.sock?x", "no user, password or query"),
        ("lpt://host/LPT1/data", "one port name"),
        ("lpt://host/LPT%2F1", "one port name"),
        ("lpt://host/#LPT1", "one port name"),
        ("lpt+unix://run/lptd/lptd.sock", "must be absolute"),
        ("lpt+unix:run/lptd.sock", "must be absolute"),
        ("lpt+unix://", "must be absolute"),
    ],
)
def test_errors_name_what_is_wrong_and_show_what_is_right(text: str, reason: str) -> None:
    with pytest.raises(UrlError) as caught:
        Url.parse(text)
    assert reason in str(caught.value)
    assert repr(text) in str(caught.value)
    assert "lpt://host:5378/LPT1" in str(caught.value)


def test_the_default_is_the_default_socket() -> None:
    assert Url(UNIX, path="/run/lptd/lptd.sock") == DEFAULT_URL
    assert str(DEFAULT_URL) == "lpt+unix:///run/lptd/lptd.sock"


def test_with_port_name() -> None:
    assert str(Url.parse("lpt://host").with_port_name("LPT2")) == "lpt://host:5378/LPT2"
    assert str(Url.parse("lpt://host/LPT1").with_port_name(None)) == "lpt://host:5378"
    assert str(DEFAULT_URL.with_port_name("LPT2")) == "lpt+unix:///run/lptd/lptd.sock#LPT2"


NAMES = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
PORT_NAMES = NAMES.filter(lambda name: name is None or "/" not in name)


@given(st.sampled_from([TCP, TLS]), st.from_regex(r"[a-z0-9.-]+", fullmatch=True), st.integers(0, 65535), PORT_NAMES)
def test_tcp_round_trip(scheme: str, host: str, tcp_port: int, port_name: str | None) -> None:
    url = Url(scheme, host, tcp_port, "", port_name)
    assert Url.parse(str(url)) == url


@given(NAMES.map(lambda name: f"/{name or ''}"), NAMES)
def test_unix_round_trip(path: str, port_name: str | None) -> None:
    url = Url(UNIX, path=path, port_name=port_name)
    assert Url.parse(str(url)) == url


@given(st.text() | st.text().map(lambda text: f"lpt://{text}") | st.text().map(lambda text: f"lpt+unix://{text}"))
def test_any_text_is_an_address_or_a_url_error(text: str) -> None:
    try:
        url = Url.parse(text)
    except UrlError:
        return
    assert Url.parse(str(url)) == url


@pytest.mark.parametrize(
    ("host", "lacks"),
    [
        ("fe80::1", True),
        ("fe80::1%lo", False),
        ("::1", False),
        ("169.254.1.1", False),
        ("lab-pc", False),
        ("fec0::1", False),
    ],
)
def test_what_lacks_its_interface(host: str, lacks: bool) -> None:
    assert lacks_zone(host) is lacks
