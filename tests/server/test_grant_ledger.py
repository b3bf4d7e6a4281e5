"""Grant numbers that only ever grow."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpt_service.server.grant_ledger import GrantLedger

NOW_NS = 1_700_000_000_000_000_000
NOW_US = NOW_NS // 1000


def test_without_a_folder_numbers_begin_at_the_time_of_day() -> None:
    ledger = GrantLedger(None, "LPT1")
    assert ledger.first(NOW_NS) == NOW_US
    ledger.keep(NOW_US + 10**9)


def test_a_start_begins_beyond_all_that_was_given_out_though_the_clock_went_back(tmp_path: Path) -> None:
    given = GrantLedger(tmp_path, "LPT1").first(NOW_NS) + 1_000_000
    assert GrantLedger(tmp_path, "LPT1").first(NOW_NS - 10**18) > given


def test_numbers_grow_across_many_starts_with_a_clock_that_stands_still(tmp_path: Path) -> None:
    last = 0
    for _ in range(5):
        first = GrantLedger(tmp_path, "LPT1").first(NOW_NS)
        assert first > last
        last = first


def test_the_clock_is_followed_when_it_is_ahead(tmp_path: Path) -> None:
    GrantLedger(tmp_path, "LPT1").first(NOW_NS)
    assert GrantLedger(tmp_path, "LPT1").first(NOW_NS + 10**18) == NOW_US + 10**15


def test_the_note_is_renewed_before_it_is_used_up(tmp_path: Path) -> None:
    ledger = GrantLedger(tmp_path, "LPT1")
    first = ledger.first(NOW_NS)
    for given in range(first, first + (1 << 26), 1 << 22):
        ledger.keep(given)
        assert int((tmp_path / "last-grant-LPT1").read_text()) > given + (1 << 22)


def test_the_file_is_written_seldom(tmp_path: Path) -> None:
    ledger = GrantLedger(tmp_path, "LPT1")
    first = ledger.first(NOW_NS)
    (tmp_path / "last-grant-LPT1").unlink()
    ledger.keep(first + 1000)
    assert list(tmp_path.iterdir()) == []


def test_ports_have_files_of_their_own(tmp_path: Path) -> None:
    GrantLedger(tmp_path, "LPT.1").first(NOW_NS)
    GrantLedger(tmp_path, "LPT.2").first(NOW_NS)
    assert {path.name for path in tmp_path.iterdir()} == {"last-grant-LPT.1", "last-grant-LPT.2"}


@pytest.mark.parametrize("text", ["", "many", "-5", str(1 << 53), "9" * 40, "1.5", "\x00"])
def test_a_file_that_makes_no_sense_is_not_believed(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "last-grant-LPT1"
    path.write_text(text)
    assert GrantLedger(tmp_path, "LPT1").first(NOW_NS) == NOW_US
    assert f"{path}: not usable" in caplog.text
    assert int(path.read_text()) > NOW_US, "and it is made good"


def test_a_folder_that_is_not_there_is_told_and_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = GrantLedger(tmp_path / "none", "LPT1")
    assert ledger.first(NOW_NS) == NOW_US
    assert "cannot be written" in caplog.text


def test_an_unreadable_file_is_told_and_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "last-grant-LPT1").mkdir()
    assert GrantLedger(tmp_path, "LPT1").first(NOW_NS) == NOW_US
    assert "not usable" in caplog.text
