from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from math import inf
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tierline.errors import ConfigurationError
from tierline.windows import LONGEST_ROLLING, STEPS, Span, Window, check_timezone, parse_window

UNITS = ("minute", "hour", "day", "month")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/Havana",  # midnight is skipped in spring, and read twice in autumn
    "Asia/Beirut",  # midnight is skipped; 23:00 is read twice
    "Africa/Cairo",
    "America/Sao_Paulo",
    "America/Scoresbysund",  # the clocks move at midnight, from 2024 on to 23:00
    "Asia/Kolkata",  # 5:30 from UTC
    "Asia/Kathmandu",  # 5:45; 5:30 until 1986
    "America/St_Johns",  # until 2011 the clocks moved at a minute past midnight
    "Australia/Lord_Howe",  # the clocks move by half an hour
    "Pacific/Apia",  # there was no 30th of December 2011
    "America/Caracas",  # moved by half an hour for good
)
times = st.floats(0, datetime(2037, 12, 1, tzinfo=UTC).timestamp(), allow_nan=False)
rolling = st.sampled_from([60, 90 * 60, 24 * 3600, 7 * 86_400, LONGEST_ROLLING])
windows = st.one_of(
    st.builds(Window, st.sampled_from(UNITS), st.sampled_from(ZONES)),
    st.builds(lambda seconds: Window("rolling", seconds=seconds), rolling),
    st.just(Window("total")),
)


def at(*when: int, zone: str = "UTC", fold: int = 0) -> float:
    return datetime(*when, tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def hours(span: Span) -> float:
    return (span.until - span.start) / 3600


LORD_HOWE_MOVED = at(2026, 4, 4, 15)


@given(windows, times)
@example(Window("hour", "Australia/Lord_Howe"), LORD_HOWE_MOVED)
@example(Window("hour", "Australia/Lord_Howe"), LORD_HOWE_MOVED - 1)
@example(Window("hour", "Asia/Kathmandu"), at(1985, 12, 31, 18, 30))
@example(Window("hour", "America/Caracas"), at(2007, 12, 9, 7))
@example(Window("day", "Pacific/Apia"), at(2011, 12, 30, 10))
@example(Window("day"), at(2003, 12, 17) - 2e-7)  # a datetime rounds it up
def test_spans_have_no_gap(window: Window, now: float) -> None:
    """A moment is in its span, spans follow each other, and each answers for itself wherever it is asked."""
    span = window.span(now)
    assert span.start <= now < span.until <= span.end
    fresh = Window(window.unit, window.timezone, window.seconds)
    assert fresh.span(span.start) == span
    if span.until < inf:
        assert fresh.span(span.until - 1e-3) == span
        assert fresh.span(span.until).start == span.until
        assert fresh.span(span.start - 1e-3).until == span.start


@given(windows, st.lists(times, min_size=2, max_size=8))
def test_a_window_remembers_nothing_wrong(window: Window, moments: list[float]) -> None:
    """One window asked about many times, in any order, answers as a new one does."""
    for now in moments:
        assert window.span(now) == Window(window.unit, window.timezone, window.seconds).span(now)


def test_threads_share_a_window() -> None:
    """What one thread asks changes no answer that another gets."""
    window = Window("hour")
    moments = [at(2026, 11, 21, hour) for hour in range(24)] * 200

    def one(now: float) -> bool:
        return window.span(now) == Span(now, now + 3600, now + 3600)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, moments, chunksize=50))


@given(st.sampled_from(UNITS), times)
def test_windows_of_utc_are_those_of_the_calendar(unit, now: float) -> None:
    """Without a time zone a window is a stretch of UTC with one name."""
    name = {"minute": "%Y%m%d%H%M", "hour": "%Y%m%d%H", "day": "%Y%m%d", "month": "%Y%m"}[unit]

    def named(moment: float) -> str:
        return datetime.fromtimestamp(int(moment), UTC).strftime(name)

    span = Window(unit).span(now)
    assert named(span.start) == named(now) == named(span.until - 1)
    assert named(span.start - 1) < named(now) < named(span.until)


@given(st.sampled_from(ZONES), times)
def test_days_are_those_of_the_wall(zone: str, now: float) -> None:
    """A day in a time zone has the date that the clocks there show, but for what they read twice."""
    span = Window("day", zone).span(now)
    shown = datetime.fromtimestamp(int(now), ZoneInfo(zone)).date()
    begun = datetime.fromtimestamp(span.start, ZoneInfo(zone)).date()
    assert begun - shown in (timedelta(0), timedelta(days=1))
    if begun != shown:
        moved = datetime.fromtimestamp(int(now), ZoneInfo(zone)).utcoffset()
        assert moved != datetime.fromtimestamp(span.start, ZoneInfo(zone)).utcoffset()


@pytest.mark.parametrize(
    ("window", "now", "start", "end"),
    [
        ("month", at(2028, 2, 29, 23, 59, 59), at(2028, 2, 1), at(2028, 3, 1)),
        ("month", at(2026, 2, 28), at(2026, 2, 1), at(2026, 3, 1)),
        ("month", at(2100, 2, 28, 23), at(2100, 2, 1), at(2100, 3, 1)),
        ("month", at(2026, 12, 31, 23, 59, 59), at(2026, 12, 1), at(2027, 1, 1)),
        ("month", at(2026, 4, 30, 12), at(2026, 4, 1), at(2026, 5, 1)),
        ("day", at(2028, 2, 29), at(2028, 2, 29), at(2028, 3, 1)),
        ("day", at(2026, 12, 31, 23, 59, 59), at(2026, 12, 31), at(2027, 1, 1)),
        ("hour", at(2026, 3, 29, 1, 30), at(2026, 3, 29, 1), at(2026, 3, 29, 2)),  # Europe's clocks move here
        ("minute", at(2026, 12, 31, 23, 59, 59), at(2026, 12, 31, 23, 59), at(2027, 1, 1)),
        ("minute", at(2016, 12, 31, 23, 59, 59), at(2016, 12, 31, 23, 59), at(2017, 1, 1)),  # with a leap second
        ("total", at(2026, 1, 1), 0, inf),
    ],
)
def test_dst_month_end_leap(window, now: float, start: float, end: float) -> None:
    """Months end when they end, leap days are days, and no daylight saving shifts UTC."""
    assert Window(window).span(now) == Span(start, end, end)


@pytest.mark.parametrize(
    ("zone", "date", "length"),
    [
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("America/Havana", (2026, 3, 8), 23),
        ("America/Havana", (2026, 11, 1), 25),
        ("Asia/Beirut", (2026, 3, 29), 23),
        ("Asia/Beirut", (2026, 10, 24), 25),
        ("Africa/Cairo", (2026, 4, 24), 23),
        ("Africa/Cairo", (2026, 10, 29), 25),
        ("America/Sao_Paulo", (2018, 11, 4), 23),
        ("America/Sao_Paulo", (2019, 2, 16), 25),
        ("Australia/Lord_Howe", (2026, 4, 5), 24.5),
        ("Australia/Lord_Howe", (2026, 10, 4), 23.5),
        ("Pacific/Apia", (2011, 12, 29), 24),
        ("Pacific/Apia", (2011, 12, 31), 24),
        ("Asia/Kolkata", (2026, 7, 1), 24),
    ],
)
def test_days_in_time_zones(zone: str, date: tuple[int, int, int], length: float) -> None:
    """A day is from midnight to midnight where the budget is, which may be skipped or be read twice."""
    span = Window("day", zone).span(at(*date, 12, zone=zone))
    assert hours(span) == length
    assert datetime.fromtimestamp(span.start, ZoneInfo(zone)).date() == datetime(*date, tzinfo=UTC).date()
    assert datetime.fromtimestamp(span.until - 1, ZoneInfo(zone)).date() == datetime(*date, tzinfo=UTC).date()


def test_a_day_that_was_skipped() -> None:
    """Where a date does not exist, the day before it ends when the day after it begins."""
    apia = Window("day", "Pacific/Apia")
    skipped = at(2011, 12, 30, 10)  # when it became the 31st
    assert apia.span(skipped - 1).until == skipped
    assert apia.span(skipped).start == skipped
    assert hours(Window("month", "Pacific/Apia").span(skipped)) == 30 * 24


def test_an_hour_that_is_read_twice() -> None:
    """A midnight that is read twice begins the day at its first time, and each hour is an hour."""
    day, hour = Window("day", "America/Havana"), Window("hour", "America/Havana")
    first = at(2026, 11, 1, zone="America/Havana")
    again = at(2026, 11, 1, zone="America/Havana", fold=1)
    assert again - first == 3600
    assert day.span(first - 1).until == first
    assert day.span(first) == day.span(again) == day.span(again + 3600)
    assert (hour.span(first), hour.span(again)) == (
        Span(first, again, again),
        Span(again, again + 3600, again + 3600),
    )


def test_an_evening_that_is_read_twice() -> None:
    """Where clocks go back from midnight to the evening before, that day goes on."""
    day = Window("day", "America/Sao_Paulo")
    moved = at(2019, 2, 17, 2)  # from midnight to 23:00
    assert day.span(moved - 1) == day.span(moved) == day.span(moved + 3599)
    assert day.span(moved).until == moved + 3600


def test_a_midnight_that_comes_back() -> None:
    """A day that has begun goes on, also where the clocks are put back to the day before."""
    day = Window("day", "America/St_Johns")
    midnight = at(2010, 11, 7, zone="America/St_Johns")
    shown = datetime.fromtimestamp(midnight + 120, ZoneInfo("America/St_Johns"))
    assert (shown.day, shown.hour, shown.minute) == (6, 23, 2)
    assert day.span(midnight - 1).until == midnight
    for seconds in (0, 59, 60, 120, 3659, 3660, 7200):
        assert Window("day", "America/St_Johns").span(midnight + seconds) == day.span(midnight)
    assert hours(day.span(midnight)) == 25


def test_half_hours() -> None:
    """Hours are those of the clocks there; the one in which they are moved by half an hour ends with it."""
    kolkata = Window("hour", "Asia/Kolkata")
    assert kolkata.span(at(2026, 7, 1, 12)) == Span(
        at(2026, 7, 1, 11, 30), at(2026, 7, 1, 12, 30), at(2026, 7, 1, 12, 30)
    )
    lord_howe = Window("hour", "Australia/Lord_Howe")
    for minutes, length in ((-1, 1), (0, 0.5), (29, 0.5), (30, 1)):
        moment = LORD_HOWE_MOVED + minutes * 60
        assert hours(lord_howe.span(moment)) == hours(Window("hour", "Australia/Lord_Howe").span(moment)) == length
    spring = at(2026, 10, 3, 15, 30)
    assert [hours(lord_howe.span(spring + minutes * 60)) for minutes in (-1, 0, 29, 30)] == [1, 0.5, 0.5, 1]


@given(rolling, times)
def test_rolling_windows(seconds: int, now: float) -> None:
    """A charge counts for the length of the window, never less, and at most a sixtieth more; 61 parts at most do."""
    span = Window("rolling", seconds=seconds).span(now)
    assert seconds <= span.end - now <= seconds + seconds / STEPS
    assert span.until - span.start == seconds / STEPS
    assert (span.end - span.start) / (span.until - span.start) == STEPS + 1


def test_totals() -> None:
    """A total never ends."""
    assert Window("total").span(0) == Window("total").span(at(2300, 1, 1)) == Span(0, inf, inf)


@pytest.mark.parametrize(
    ("text", "window", "shown"),
    [
        ("minute", Window("minute", "Europe/Berlin"), "/minute"),
        ("hour", Window("hour", "Europe/Berlin"), "/hour"),
        ("day", Window("day", "Europe/Berlin"), "/day"),
        ("month", Window("month", "Europe/Berlin"), "/month"),
        ("24h rolling", Window("rolling", seconds=86_400), "/24h rolling"),
        ("1d  rolling", Window("rolling", seconds=86_400), "/24h rolling"),
        ("7d rolling", Window("rolling", seconds=7 * 86_400), "/7d rolling"),
        ("1m rolling", Window("rolling", seconds=60), "/1m rolling"),
        ("90m rolling", Window("rolling", seconds=5_400), "/90m rolling"),
        ("120m rolling", Window("rolling", seconds=7_200), "/2h rolling"),
        ("366d rolling", Window("rolling", seconds=LONGEST_ROLLING), "/366d rolling"),
    ],
)
def test_windows_are_read_and_shown(text: str, window: Window, shown: str) -> None:
    """A window reads as it is written, and what is shown can be written."""
    assert parse_window(text, "Europe/Berlin") == window
    assert str(window) == shown
    assert parse_window(shown[1:], "Europe/Berlin") == window
    assert str(Window("total")) == ""


@pytest.mark.parametrize(
    "text",
    ["", "week", "Day", "days", "total", "rolling", "24h", "24 h rolling", "24H rolling", "24hrolling", "h rolling",
     "-5h rolling", "1.5h rolling", "24h rolling ", "10s rolling", "٣h rolling", "day rolling",
     "9999999h rolling", "x" * 9999],
)  # fmt: skip
def test_windows_that_are_none(text: str) -> None:
    """What is no window is refused with the text itself and examples, in a message of bounded length."""
    with pytest.raises(ConfigurationError, match=r"is not minute, hour, day or month; write for example") as caught:
        parse_window(text, "UTC")
    assert repr(text)[:30] in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["0m rolling", "0d rolling", "367d rolling", "999999d rolling", "8785h rolling"])
def test_rolling_windows_that_cannot_be(text: str) -> None:
    """A rolling window has a shortest and a longest length."""
    with pytest.raises(ConfigurationError, match="at least 1m and at most 366d"):
        parse_window(text, "UTC")


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "Asia/Kolkata", "Etc/GMT+12"])
def test_time_zones(name: str) -> None:
    """Names of the time zone database are known."""
    check_timezone(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/", "../../etc/passwd", "/etc/passwd", "Europe", "Europe/", "Europe/Berlin\n", "Berlin",
     "zone.tab",
     "\x00", "a\x00b", "\ud800", "UTC\x00", "x" * 9999, "tzdata.zoneinfo", "%s", None, 5, True, b"UTC", ["UTC"], {}],
)  # fmt: skip
def test_time_zones_that_are_none(name: object) -> None:
    """What is no time zone is refused with the name and what to do, wherever it points to."""
    with pytest.raises(ConfigurationError, match="is no time zone of this machine") as caught:
        check_timezone(name)
    assert len(str(caught.value)) < 350
    str(caught.value).encode()


def test_utc_needs_no_database(monkeypatch) -> None:
    """UTC is there on a system that brings no time zones."""

    def missing(name: str) -> ZoneInfo:
        raise KeyError(name)

    monkeypatch.setattr("tierline.windows.ZoneInfo", missing)
    check_timezone("UTC")
    assert [hours(Window(unit).span(at(2026, 11, 21))) for unit in UNITS] == [1 / 60, 1, 24, 720]
    with pytest.raises(ConfigurationError, match="tzdata"):
        check_timezone("Antarctica/Troll")


def test_series() -> None:
    """What stores call a window tells apart what must not be added up, and UTC has the short name."""
    windows = [Window(unit, zone) for unit in UNITS for zone in ("UTC", "Asia/Kolkata")]
    windows += [Window("rolling", seconds=3600), Window("rolling", seconds=86_400), Window("total")]
    assert len({window.series for window in windows}) == len(windows)
    assert [windows[4].series, windows[5].series, windows[-2].series, windows[-1].series] == [
        "day", "day Asia/Kolkata", "rolling 86400", "total",
    ]  # fmt: skip


def test_windows_are_values() -> None:
    """Equal words are equal windows, whatever was asked of them before."""
    one, other = Window("day", "Asia/Kolkata"), Window("day", "Asia/Kolkata")
    one.span(at(2026, 1, 1))
    assert (one, hash(one)) == (other, hash(other))
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301
    assert pickle.loads(pickle.dumps(one)).span(at(2026, 1, 1)) == one.span(at(2026, 1, 1))  # noqa: S301


def test_how_long_windows_are_shown() -> None:
    """In hours up to two days, and then in days."""
    assert [str(Window("rolling", seconds=days * 86_400)) for days in (2, 3)] == ["/48h rolling", "/3d rolling"]


def test_series_of_totals_and_runs() -> None:
    """A total is the same in every time zone; of a run several spans count at a time, and stores are told so."""
    assert Window("total", "Asia/Kolkata").series == "total"
    assert Window("run", seconds=60).series == "rolling run"
    for name in ("run", "total", "rolling"):
        with pytest.raises(ConfigurationError):
            parse_window(name, "UTC")
