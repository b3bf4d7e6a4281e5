"""lptctl listen: what comes, what is lost, and how it ends."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.fake_daemon import mark
from tests.lptctl.processes import BOUND_S, Lptctl, finish, read_line, running_daemon, started
from tests.lptctl.relay import relay_to
from tests.lptctl.scripted import scripted_daemon

pytest.importorskip("click")
pytest.importorskip("trio")
from lpt_client import blocking
from lpt_service.protocol.messages import KIND_STOPPED

PULSE_HZ = 50


@pytest.fixture(scope="module")
def pulsing_url() -> Iterator[str]:
    """A port that raises interrupts by itself."""
    with running_daemon("--pulse-hz", str(PULSE_HZ)) as daemon:
        yield daemon.url


def events_of(text: str) -> list[dict[str, Any]]:
    """The JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


def test_count_ends_it(lptctl: Lptctl, pulsing_url: str) -> None:
    result = lptctl("listen", "--count", "3", url=pulsing_url)
    # A daemon that was late raises several at once: then a line stands for so many, and the last for more than wanted.
    counts = [int(count or 1) for count in re.findall(r" interrupt \d+(?:  count (\d+))?", result.out)]
    assert result.code == 0
    assert sum(counts[:-1]) < 3 <= sum(counts)
    assert result.err.splitlines()[0].startswith("lptctl: listening to LPT1; the next interrupt is ")
    assert result.err.splitlines()[1].startswith(f"lptctl: received {sum(counts)}, lost 0")


def test_the_counts_add_up(lptctl: Lptctl, pulsing_url: str) -> None:
    for seconds in ("0.3", "3", "30"):  # on a slow machine nothing may come for a moment
        result = lptctl("listen", "--json", "--seconds", seconds, url=pulsing_url)
        first, *events, last = events_of(result.out)
        interrupts = [event for event in events if event["event"] == "interrupt"]
        if interrupts:
            break
    assert (result.code, result.err) == (0, "")
    assert (first["event"], last["event"]) == ("connected", "end")
    assert first["port"] == "LPT1"
    assert last["received"] == sum(event["count"] for event in interrupts) > 0
    assert last["lost"] == 0
    assert interrupts[0]["seq"] == first["first_seq"]
    assert interrupts[-1]["seq"] + interrupts[-1]["count"] - first["first_seq"] == last["received"]
    assert set(interrupts[0]) == {"event", "seq", "count", "timestamp_ns", "status", "control"}


def test_ctrl_c_ends_it_in_order(pulsing_url: str) -> None:
    with started("listen", "--json", url=pulsing_url) as process:
        shown = [read_line(process.stdout) for _ in range(4)]
        process.send_signal(signal.SIGINT)
        code, out, err = finish(process)
    _, *events, last = events_of("\n".join(shown) + "\n" + out)
    assert (code, err) == (-signal.SIGINT, "")
    assert last["event"] == "end"
    assert last["received"] == sum(event["count"] for event in events if event["event"] == "interrupt")


def test_a_signal_before_the_count_is_reached_shows(url: str) -> None:
    with started("listen", "--count", "9", url=url) as process:
        read_line(process.stderr)
        process.terminate()
        code, _, err = finish(process)
    assert code == -signal.SIGTERM
    assert err.startswith("lptctl: received 0, lost 0")


def test_too_few_in_time_is_4(lptctl: Lptctl, url: str) -> None:
    result = lptctl("listen", "--count", "1", "--seconds", "0.01", "--json", url=url)
    assert result.code == 4
    assert events_of(result.out)[-1]["received"] == 0


def test_an_owner_raises_an_interrupt_and_it_is_shown(url: str) -> None:
    with blocking.open_port(url) as port, started("listen", "--json", "--count", "1", url=url) as process:
        assert json.loads(read_line(process.stdout))["event"] == "connected"
        with port.allocated():
            port.pulse(0x08, width_us=10)  # D3 is plugged to nAck
        result = finish(process)
    assert result.code == 0
    assert [event["event"] for event in events_of(result.out)][-2:] == ["interrupt", "end"]


def test_marks_are_visible_and_a_daemon_that_stops_ends_it() -> None:
    with running_daemon() as daemon, started("listen", url=daemon.url) as process:
        read_line(process.stderr)
        daemon.process.terminate()
        result = finish(process)
    assert result.code == 3
    assert "stopped: the port was paused or removed, or its daemon stops" in result.out
    assert result.err.splitlines()[0].startswith("lptctl: received 0, lost 0")
    assert result.err.count("\n") == 2


def test_with_reconnect_it_goes_on_where_it_was(tmp_path: Path) -> None:
    socket_url = f"lpt+unix://{tmp_path}/lptd.sock"
    with (
        running_daemon(listen=socket_url) as daemon,
        started("listen", "--json", "--reconnect", url=daemon.url) as process,
    ):
        assert json.loads(read_line(process.stdout))["event"] == "connected"
        daemon.kill()
        with running_daemon("--pulse-hz", str(PULSE_HZ), listen=socket_url):
            seen: list[dict[str, Any]] = []
            while not seen or seen[-1]["event"] != "interrupt":
                seen.append(json.loads(read_line(process.stdout)))
            process.send_signal(signal.SIGINT)
            result = finish(process)
    kinds = [event["event"] for event in seen]
    assert "reconnected" in kinds
    assert {"event": "sync", "reason": "restarted"}.items() <= seen[kinds.index("sync")].items()
    assert result.code == -signal.SIGINT
    assert events_of(result.out)[-1]["unknown_periods"] >= 1


def test_a_pause_is_shown_and_does_not_end_it(tmp_path: Path) -> None:
    with (
        running_daemon(listen=f"lpt+unix://{tmp_path}/lptd.sock") as daemon,
        blocking.open_port(daemon.url) as port,  # of the daemon's own user: an administrator
        started("listen", "--json", "--count", "1", url=daemon.url) as process,
    ):
        read_line(process.stdout)
        port.pause("a cable")
        port.resume_port()
        with port.allocated():
            port.pulse(0x08, width_us=10)
        result = finish(process)
    assert (result.code, result.err) == (0, "")
    shown = [event.get("kind", event["event"]) for event in events_of(result.out)]
    assert shown == ["stopped", "unheard", "interrupt", "end"]


@pytest.mark.parametrize("state", ["ready", "absent"])
def test_a_port_that_is_removed_ends_it(state: str) -> None:
    with scripted_daemon() as daemon, started("listen", url=daemon.url) as process:
        read_line(process.stderr)
        daemon.daemon.answers["status"] = {"state": "ready", "paused": ""}
        daemon.send(mark(KIND_STOPPED, 0))
        daemon.wait_for("status")
        daemon.daemon.answers["status"] = {"state": state, "paused": "" if state == "absent" else None}
        daemon.send(mark(KIND_STOPPED, 0, 2000))
        result = finish(process)
    assert result.code == 3
    assert result.out.count("stopped: ") == 2
    assert result.err.splitlines()[1] == (
        "lptctl: the port was removed, or its daemon stops; `lptctl status` shows how it is now"
    )


def test_with_reconnect_a_cut_connection_loses_nothing(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f'server.listen = ["lpt://127.0.0.1:0"]\n[[port]]\ngrace_s = 30.0\npulse_hz = {PULSE_HZ}\n'
        "enable_connect_interrupt = true\n",
        encoding="utf-8",
    )
    with (
        running_daemon("--config", str(config)) as daemon,
        relay_to(daemon.url) as relay,
        started("listen", "--json", "--reconnect", url=relay.url) as process,
    ):
        read_line(process.stdout)
        for _ in range(2):
            relay.cut()
            assert read_line(process.stderr).endswith("; connecting again")
            while json.loads(read_line(process.stdout))["event"] != "reconnected":
                pass
        while json.loads(read_line(process.stdout))["event"] != "interrupt":
            pass
        process.send_signal(signal.SIGINT)
        result = finish(process)
    assert (result.code, result.err) == (-signal.SIGINT, "")
    assert {"event": "end", "lost": 0}.items() <= events_of(result.out)[-1].items()


def test_a_reader_that_has_seen_enough_ends_it_quietly(pulsing_url: str) -> None:
    with started("listen", url=pulsing_url) as process:
        assert process.stdout is not None
        read_line(process.stdout)
        process.stdout.close()
        assert process.wait(BOUND_S) == -signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read().count("\n") == 1  # that it listens
