"""What is said of a run of `lptctl latency`: text, JSON, CSV, and the page."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")
from lptctl import latency_machine
from lptctl.common import to_json
from lptctl.latency_page import chart, page
from lptctl.latency_report import account, as_map, histogram_lines, sentence, show, write_csv
from lptctl.latency_statistics import Bucket
from tests.lptctl.latency_rig import FACTS, report_of, run_of

THOUSAND = [100.0 + number for number in range(1000)]  # p50 599, p99 1089, p99.9 1098, max 1099
REAL = {"kind": "ppdev"}


class Page(HTMLParser):
    """The text of a page by element, and what could load something."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: dict[str, list[str]] = {}
        self.references: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [name for name, _ in attrs if name in ("src", "href", "style", "onload", "onclick")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


# Text


def test_the_text_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = run_of([9_999_999.9, *THOUSAND], has_one_clock=True, status=REAL)
    lines = show(report_of(run)).splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert rows["max"] == ["max", "9999999.9", "10.0", "5.0", "9999984.9"]
    assert rows["p99.9"][1] == "1099.0"


def test_a_simulated_port_and_an_early_end_are_told() -> None:
    run = run_of(THOUSAND[:3], status={"kind": "simulated"}, cut_short="x\ny", missing=1, marks={"masked": 2})
    shown = show(report_of(run))
    assert "a simulated port: no hardware is in these figures" in shown
    assert "cut short after 4 of 4: x\\ny" in shown
    assert "interrupts: 1 missing, " in shown
    assert "port masked 2 times" in shown


def test_names_cannot_control_the_terminal() -> None:
    shown = show(report_of(run_of([1.0]), server="\x1b[31m[bold]red", port="\n\x9b"))
    assert "\\x1b[31m[bold]red" in shown
    assert all(char.isprintable() or char == "\n" for char in shown)


def test_bars() -> None:
    lines = histogram_lines([Bucket(1.0, 10.0, 880), Bucket(10.0, 100.0, 0), Bucket(100.0, 1000.0, 1)], "#")
    assert [line.count("#") for line in lines] == [44, 0, 1]
    assert lines[1] == "      10.0 ..     100.0        0"
    assert max(map(len, lines)) <= 80


def test_a_sentence_to_quote() -> None:
    text = sentence(report_of(run_of(THOUSAND, status=REAL)))
    assert "median 599.0 µs, 99th percentile 1,089.0 µs, 99.9th percentile 1,098.0 µs, maximum 1,099.0 µs" in text
    assert "(n = 1,000, one at once after the other; interrupts: 0 missing, " in text
    assert all(fact in text for fact in FACTS.values())
    assert "cut short" not in text
    short = sentence(report_of(run_of([5.0], status={"kind": "simulated"}, cut_short="x")))
    assert "percentile" not in short
    assert "simulated port without hardware" in short
    assert "the run was cut short (x)" in short


# For programs


def test_json_has_null_for_what_is_not_known() -> None:
    map_ = json.loads(to_json(as_map(report_of(run_of([20.0, 30.0], status=REAL, strays=4)))))
    assert map_["round_trip_us"] == {
        "min": 20.0, "p50": 20.0, "p90": None, "p99": None, "p999": None, "max": 30.0, "mean": 25.0,
    }  # fmt: skip
    assert map_["client_to_line_us"] is map_["interrupt_to_client_us"] is None
    assert map_["line_to_interrupt_us"]["max"] == 5.0
    assert (map_["samples"], map_["strays"], map_["kind"]) == (2, 4, "ppdev")
    assert map_["client_machine"]["CPU"] == "Abacus 3000"


@pytest.mark.parametrize(("has_one_clock", "parts"), [(True, ["10000", "5000", "5000"]), (False, ["", "5000", ""])])
def test_csv(has_one_clock: bool, parts: list[str]) -> None:
    file = io.StringIO()
    write_csv(run_of([20.0, 30.0], has_one_clock=has_one_clock), file)
    header, first, second = csv.reader(io.StringIO(file.getvalue()))
    assert header[:3] == ["index", "sent_ns", "latency_ns"]
    assert first == ["1", "1000000", "20000", *parts]
    assert second[:3] == ["2", "2000000", "30000"]


# The page


def test_the_page_has_the_values_and_needs_nothing_else() -> None:
    report = report_of(run_of(THOUSAND, has_one_clock=True, status=REAL))
    read = Page(page(report))
    assert not read.open
    assert not read.tags & {"script", "link", "img", "iframe", "object"}
    assert not read.references
    assert "".join(read.texts["blockquote"]) == sentence(report)
    cells = read.texts["td"]
    assert cells[:4] == ["100.0", "10.0", "5.0", "85.0"]
    assert {"1098.0", "LPT1 (ppdev)", "lpt-service 9.8.7", "lpt://lab-pc/LPT1", account(report.run)} <= {*cells}
    assert {*FACTS.values(), report.date} <= {*cells}
    assert "The machine" in read.texts["h2"]
    assert "p" in read.texts
    assert not any("simulated" in text for text in read.texts["p"])
    assert sum(int(text.replace(",", "")) for text in read.texts["text"][1::2]) == 1000


def test_the_page_says_what_it_does_not_know() -> None:
    read = Page(page(report_of(run_of([7.0], status={"kind": "simulated"}, cut_short="ended by SIGTERM"))))
    assert "The machine of the client" in read.texts["h2"]
    assert read.texts["p"][0] == "Cut short after 1 of 1: ended by SIGTERM."
    assert read.texts["p"][1].startswith("A simulated port: no hardware is in these figures")
    assert read.texts["td"][:4] == ["7.0", "–", "5.0", "–"]


def test_names_cannot_get_into_the_page() -> None:
    hostile = "\"'><script>alert(1)</script><b onclick=x>&amp;"
    run = run_of([1.0], status={"kind": hostile}, marks={hostile: 1}, cut_short=hostile)
    text = page(report_of(run, server=hostile, port=hostile, url=hostile, date=hostile))
    read = Page(text)
    assert not read.open
    assert not read.tags & {"script", "b"}
    assert not read.references
    assert "<script" not in text
    assert {f"{hostile} ({hostile})", hostile} <= {*read.texts["td"]}


def test_a_chart_has_a_bar_for_each_bucket() -> None:
    picture = chart([Bucket(1.0, 2.0, 400), Bucket(2.0, 4.0, 0), Bucket(4.0, 8.0, 1)])
    assert [part.split('width="')[1].split('"')[0] for part in picture.split("<rect")[1:]] == ["460.0", "0.0", "1.1"]


# The machine


def test_facts_are_told_as_text() -> None:
    facts = latency_machine.facts()
    assert {*FACTS} <= {*facts}
    assert all(value and isinstance(value, str) for value in facts.values())
    assert "(+" in latency_machine.now() or "(-" in latency_machine.now()


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        ("processor\t: 0\nmodel name\t: Abacus 1\nprocessor : 1\nmodel name\t: Abacus 2\n", "Abacus 1"),
        ("processor\t: 0\nBogoMIPS\t: 108.00\n\nHardware\t: BCM2835\nModel\t\t: Pi 4: rev B\n", "Pi 4: rev B"),
    ],
)
def test_the_processors_name(cpuinfo: str, model: str) -> None:
    assert latency_machine.cpu_model(cpuinfo) == model


@pytest.mark.parametrize(
    ("cpuinfo", "told"), [("flags: fpu hypervisor", "yes"), ("flags: fpu", "no"), ("", "not known")]
)
def test_a_virtual_machine(cpuinfo: str, told: str) -> None:
    assert latency_machine.virtual_machine(cpuinfo) == told


@pytest.mark.parametrize(
    ("version", "realtime", "told"),
    [
        ("#1 SMP PREEMPT_RT Debian 6.1", "", "PREEMPT_RT"),
        ("#1 SMP", "1\n", "PREEMPT_RT"),
        ("#1 SMP PREEMPT_DYNAMIC Debian 6.1", "0", "PREEMPT_DYNAMIC, not PREEMPT_RT"),
        ("#1 SMP Debian 6.1", "", "not PREEMPT_RT"),
    ],
)
def test_preemption(monkeypatch: pytest.MonkeyPatch, version: str, realtime: str, told: str) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert latency_machine.preemption(version, realtime) == told
