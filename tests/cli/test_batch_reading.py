"""What is made of a file: requests in order, and what is wrong with a line by its number."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any

import pytest

from tests.needs import need
from tierline.batches import BatchRequest, Unreadable
from tierline.errors import ConfigurationError

need("typer", "rich")

from tierline.cli import batch_lines  # noqa: E402
from tierline.cli.batch_reading import Requests, Shape  # noqa: E402

ONE = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
CSV = Shape(prompt="Say {text}", max_tokens=5)


def line(name: str = "a", params: dict[str, Any] = ONE, **more: Any) -> str:
    return json.dumps({"custom_id": name, "params": params, **more})


def read(text: str | bytes, shape: Shape | None = None, form: Any = None) -> Requests:
    return Requests(io.BytesIO(text.encode() if isinstance(text, str) else text), shape or Shape(), form)


def whys(found: Requests) -> list[str]:
    return [each.why if isinstance(each, Unreadable) else each.custom_id for each in found]


def test_lines_of_anthropic() -> None:
    """With what the shape adds where a line does not say; blank lines and both ends of lines are none."""
    shape = Shape(max_tokens=7, system="Be brief.", tenant="t", route="/r", thinking=False, drop=frozenset({"top_k"}))
    own = {"messages": [], "top_k": 3, "thinking": {"type": "adaptive"}}
    found = read(f"\ufeff{line()}\r\n\r\n{line('b', own, tenant='u', route='/s')}", shape)
    assert found.format == "anthropic"
    first, second = found
    assert isinstance(first, BatchRequest)
    assert isinstance(second, BatchRequest)
    assert (first.custom_id, first.tenant, first.route) == ("a", "t", "/r")
    assert first.params == {**ONE, "system": "Be brief.", "thinking": {"type": "disabled"}}
    assert (second.tenant, second.route, found.line_of(1)) == ("u", "/s", 3)
    assert second.params == {
        "model": "auto", "max_tokens": 7, "messages": [], "system": "Be brief.", "thinking": {"type": "adaptive"},
    }  # fmt: skip
    assert found.read == found.size


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("not json", "it is no JSON: Expecting value, at column 1"),
        ("[1]", "it is no JSON object"),
        ("[" * 100_000, "it is nested too deep"),
        (line().replace("9", "NaN"), "it is no JSON: NaN is no number of JSON"),
        (line().replace("hi", "\\ud800"), "it has half of a surrogate pair, which is no character"),
        ('{"params": {}}', "custom_id: it is missing, or is no text"),
        (line(name="x", params={"messages": []}), "params.max_tokens: it is missing: write it, or give --max-tokens"),
        ('{"custom_id": "x"}', "params: it is missing: they are what messages.create takes"),
        (line(tenent="a"), "tenent: a line has custom_id, params, tenant, route"),
        (line(tenant=7), "tenant: it is a text"),
    ],
)
def test_a_line_that_is_no_request(bad: str, why: str) -> None:
    """Is said by its number, and the others go on."""
    found = whys(read(f"{line()}\n{bad}\n{line('b')}\n"))
    assert found == ["a", f"line 2: {why}", "b"]


def test_a_line_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is passed over without being held in memory."""
    monkeypatch.setattr(batch_lines, "LONGEST", 1_000)
    monkeypatch.setattr(batch_lines, "_CHUNK", 1_000)
    text = f"{line()}\n".encode() + b"x" * 50_000_000 + f"\n{line('b')}\n".encode()
    found = read(text)
    tracemalloc.start()
    assert whys(found) == ["a", "line 2: it has 50,000,001 bytes, and a request has 1,000 at most", "b"]
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert whys(read(text[:40_000_000]))[1].startswith("line 2: it has 39,99")


def test_bytes_that_are_no_text() -> None:
    """The line is said; another encoding may be named."""
    text = b"id;text\n1;caf\xe9\n2;ok\n"
    assert whys(read(text, CSV)) == ["line 2: byte 6 is no utf-8: save the file as UTF-8, or say --encoding", "2"]
    (first, _) = read(text, Shape(prompt="{text}", max_tokens=5, encoding="cp1252"))
    assert isinstance(first, BatchRequest)
    assert first.params["messages"][0]["content"] == "café"
    for name in ("utf-16", "nonsense"):
        with pytest.raises(ConfigurationError, match="write utf-8, cp1252"):
            read(text, Shape(encoding=name))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is nothing in it"),
        ("\n \r\n", "there is nothing in it"),
        (json.dumps([{"custom_id": "a"}]), "it is a list, and lines are needed"),
        (json.dumps({"requests": []}), "it is one batch, and lines are needed"),
        ('{"a": 1}\n{"b": 2}\n', "no line of it is a request: one has custom_id and params"),
        (b"\xff\xfea\x00", "it is UTF-16: save it as UTF-8"),
        (b"\x1f\x8b\x08", "it is compressed: gunzip"),
        (b"PK\x03\x04", "it is a zip or a workbook"),
    ],
)
def test_a_file_that_is_none(text: str | bytes, why: str) -> None:
    """Whatever is in it, it is said what to do."""
    with pytest.raises(ConfigurationError, match=why):
        read(text)


def test_the_format_is_told_by_the_first_line_that_says() -> None:
    """A bad line before it is no matter; a format that is named is taken."""
    openai = json.dumps({"custom_id": "o", "body": {}})
    assert read(f"{{broken\n{openai}").format == "openai"
    assert read("id,text\n1,a", CSV).format == "csv"
    assert whys(read("broken\n", Shape(), "anthropic")) == ["line 1: it is no JSON: Expecting value, at column 1"]


def test_rows_of_a_csv() -> None:
    """Cells in quotes have lines and delimiters of their own; braces that are meant are doubled."""
    text = 'custom_id,the text,who\r\nx,"one, ""two""\r\nthree",acme\r\n\r\ny,four,\r\n'
    shape = Shape(prompt='{{"label": …}} of {the text}', max_tokens=5, tenant="all", tenant_column="who", system="S")
    found = read(text, shape)
    first, second = found
    assert isinstance(first, BatchRequest)
    assert isinstance(second, BatchRequest)
    assert first.params == {
        "model": "auto", "max_tokens": 5, "system": "S",
        "messages": [{"role": "user", "content": '{"label": …} of one, "two"\nthree'}],
    }  # fmt: skip
    assert [(each.custom_id, each.tenant) for each in (first, second)] == [("x", "acme"), ("y", "all")]
    assert (found.line_of(0), found.line_of(1)) == (2, 5)


def test_ends_of_lines_that_are_none() -> None:
    """A file with carriage returns alone is refused, with what to do."""
    with pytest.raises(ConfigurationError, match=r"line 1: a carriage return stands in it.*: save the file with"):
        read("text,who\ra,b\r", CSV)


def test_rows_that_are_none() -> None:
    """Each is said by its lines, and those after it go on."""
    text = 'text;who\na;b;c\n\'ok;x\n"q"r;x\n;x\nlast;x\n"open;x\nb;y\n'
    assert whys(read(text, CSV)) == [
        "line 2: it has 3 cells, and the header has 2",
        "line-3",
        "line 4: ';' expected after '\"'",
        "line 5: what its prompt is made of is empty",
        "line-6",
        "lines 7 to 8: a quote is opened in it, and not closed",
    ]
    assert whys(read("id,text\n,a\n", CSV)) == ["line 2: id is empty, and it is the request's custom_id"]


def test_a_row_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quote that is left open does not take the rest of the file into memory."""
    monkeypatch.setattr(batch_lines, "LONGEST", 100)
    text = 'text\na\n"open\n' + "x" * 40 + "\n" + "y" * 40 + "\n" + "z" * 40 + "\nb\n"
    found = whys(read(text, CSV))
    assert found[:2] == ["line-2", "lines 3 to 6: the row has more than 100 characters: is a quote left open?"]
    assert found[2:] == ["line-7"]


@pytest.mark.parametrize(
    ("header", "shape", "why"),
    [
        ("id,text", Shape(), "a CSV needs --prompt, such as"),
        ("id,text", Shape(prompt="{text}"), "a CSV needs --max-tokens"),
        ("id,text", Shape(prompt="{nope}", max_tokens=1), "--prompt: there is no column 'nope'; there are id, text"),
        ("id,text", Shape(prompt="hi", max_tokens=1), "--prompt has no column in it"),
        ("id,text", Shape(prompt="{text", max_tokens=1), "a brace that is meant is written twice"),
        ("id,text", Shape(prompt="{text.__class__}", max_tokens=1), "there is no column 'text.__class__'"),
        ("id,text", Shape(prompt="{text!r}", max_tokens=1), "the name of a column, and nothing else"),
        ("id,text", Shape(prompt="{text}", max_tokens=1, id="no"), "--id: there is no column 'no'"),
        ("id,text", Shape(prompt="{text}", max_tokens=1, tenant_column="no"), "--tenant-column: there is no column"),
        ("id,id", Shape(prompt="{id}", max_tokens=1), "two columns have the same name: id, id"),
    ],
)
def test_a_table_that_does_not_go_with_its_prompt(header: str, shape: Shape, why: str) -> None:
    """It is said before anything is sent."""
    with pytest.raises(ConfigurationError) as caught:
        read(f"{header}\n1,a\n", shape)
    assert why in str(caught.value)


def test_a_digest_is_of_what_is_asked_for() -> None:
    """The same file with another prompt is another job; it may be gone through before and after."""
    one, other = read("text\na\n", CSV), read("text\na\n", Shape(prompt="Tell {text}", max_tokens=5))
    assert one.digest() == read("text\na\n", CSV).digest() != other.digest()
    assert whys(one) == whys(one) == ["line-2"]
    assert read("text\nb\n", CSV).digest() != one.digest() != one.digest("more")
