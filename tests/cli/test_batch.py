"""`tierline batch`, as a person runs it, against an API on a socket."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from tests.needs import need
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import Iterator

need("typer", "rich")

from tierline.cli.app import app  # noqa: E402

ROOT = Path(__file__).parents[2]
APP = "tests.cli.batch_app:router"
PROMPT = ("--prompt", "Classify: {text}", "--max-tokens", "20", "--no-thinking")
TICKETS = (
    'id,text,who\nt1,"My card was charged\ntwice",acme\nt2,It crashes,umbrella\nt2,Again,acme\nt4,too,many,cells\n'
)


class World:
    """A directory, an API, and the command."""

    def __init__(self, fake: FakeClaude, store: str) -> None:
        self.fake, self.store = fake, store

    def run(self, *arguments: str, keys: str | None = None, **environment: str | None) -> Any:
        return CliRunner().invoke(
            app, ["batch", *arguments], input=keys, env={"COLUMNS": "80", "TIERLINE_STORE": self.store, **environment}
        )

    def told(self, *arguments: str, code: int = 0, **more: Any) -> dict[str, Any]:
        done = self.run(*arguments, "--json", **more)
        assert done.exit_code == code, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def process(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The same in a process of its own, with the Router of `batch_app`."""
        return subprocess.run(  # noqa: S603
            [sys.executable, "-m", "tierline.cli", "batch", *arguments, "--app", APP, "--factory"],
            capture_output=True, text=True, check=False, timeout=100,
            env={**os.environ, "TEST_STORE": self.store, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **environment},
        )  # fmt: skip


@pytest.fixture
def it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An API whose batches end at once."""
    fake = FakeClaude(answer=lambda _: "=billing")
    monkeypatch.chdir(tmp_path)
    with fake.serve_in_thread() as url:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", fake.api_key)
        yield World(fake, f"sqlite:///{tmp_path}/a.db")


def requests(number: int, path: str = "requests.jsonl") -> str:
    with Path(path).open("w", encoding="utf-8") as file:
        for n in range(number):
            params = {"model": "auto", "max_tokens": 20, "messages": [{"role": "user", "content": f"say {n}"}]}
            file.write(json.dumps({"custom_id": f"r{n}", "params": params}) + "\n")
    return path


def sent(fake: FakeClaude) -> int:
    """Requests that the API was given, in all batches."""
    return sum(sum(batch.counts.values()) for batch in fake.batches)


def test_a_csv_from_its_file_to_its_answers(it: World) -> None:
    """Bad rows are said by line, the rest is answered, at half price, and reported by account."""
    Path("tickets.csv").write_text(TICKETS, encoding="utf-8")
    done = it.run("submit", "tickets.csv", *PROMPT, "--tenant-column", "who", "--ceiling", "haiku", "--wait")
    assert done.exit_code == 1
    assert "line 5: custom_id 't2' is that of request 1, too\n" in done.stderr
    assert "line 6: it has 4 cells, and the header has 3\n" in done.stderr
    assert "4 requests: 2 succeeded, 2 invalid" in done.stdout
    assert "acme" in done.stdout
    assert "umbrella" in done.stdout
    (name,) = (each.split()[0] for each in it.run("jobs").stdout.splitlines())
    assert name.startswith("tickets-")
    found = it.told("status", name)
    assert (found["state"], found["succeeded"], found["invalid"], found["cost"]) == ("ended", 2, 2, it.fake.billed)
    assert (found["as_calls"], found["saved"]) == (2 * found["cost"], found["on_top_tier"] - found["cost"])
    assert {each["account"]: each["outcomes"] for each in found["by_account"]} == {
        None: {"invalid": 2}, "acme": {"succeeded": 1}, "umbrella": {"succeeded": 1},
    }  # fmt: skip
    written = it.run("results", name, "--format", "csv")
    assert written.exit_code == 1
    rows = list(csv.DictReader(written.stdout.splitlines()))
    assert [(each["custom_id"], each["outcome"], each["text"]) for each in rows] == [
        ("t1", "succeeded", "'=billing"), ("t2", "succeeded", "'=billing"), ("", "invalid", ""), ("", "invalid", ""),
    ]  # fmt: skip
    assert rows[3]["error"] == "line 6: it has 4 cells, and the header has 3"
    assert sum(int(each["cost"]) for each in rows) == it.fake.billed
    assert it.run("delete", name).exit_code == 0
    assert it.run("jobs").stdout == "there are no jobs\n"


def test_the_same_command_sends_nothing_twice(it: World) -> None:
    """The job is named by the file and its content; another prompt is another job; a name may be given."""
    Path("a.csv").write_text("text\nhi\n", encoding="utf-8")
    for said in ("goes on with it, if it is cut off", "was submitted before: 1 succeeded. Nothing is sent again"):
        done = it.run("submit", "a.csv", *PROMPT, "--wait")
        assert (done.exit_code, said in done.stderr) == (0, True)
    assert sent(it.fake) == 1
    it.run("submit", "a.csv", *PROMPT, "--wait", "--floor", "opus")
    assert sent(it.fake) == 2
    it.run("submit", "a.csv", *PROMPT, "--wait", "--job", "mine")
    Path("a.csv").write_text("text\nhi\nho\n", encoding="utf-8")
    done = it.run("submit", "a.csv", *PROMPT, "--wait", "--job", "mine")
    assert done.exit_code == 2
    assert "job 'mine' was made of" in done.stderr
    assert sent(it.fake) == 3


def test_what_openai_takes_comes_back_as_openai_has_it(it: World) -> None:
    """From standard input; what cannot be mapped is said, and left out only when that is asked for."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 300}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    seeded = {**line, "custom_id": "b", "body": {**body, "seed": 1}}
    lines = f"{json.dumps(line)}\n{json.dumps(seeded)}\n"
    done = it.run("submit", "-", "--wait", "--job", "j", "--ceiling", "haiku", keys=lines)
    assert done.exit_code == 1
    assert "line 2: seed: Claude's API has nothing like it" in done.stderr
    assert "gpt-4o, which 1 line named, is no model of Claude's: auto was taken" in done.stderr
    found = [json.loads(each) for each in it.run("results", "j", "--format", "openai").stdout.splitlines()]
    assert found[0]["response"]["body"]["choices"][0]["message"]["content"] == "=billing"
    assert found[0]["tierline"]["cost"] == it.fake.billed
    assert (found[1]["response"], found[1]["error"]["code"]) == (None, "invalid")
    assert it.told("submit", "-", "--wait", "--drop", "seed", keys=lines)["succeeded"] == 2


def test_a_dry_run_sends_nothing(it: World) -> None:
    """And needs no key, no store, no app."""
    done = it.run("submit", requests(3), "--dry-run", ANTHROPIC_API_KEY=None, TIERLINE_STORE=None)
    assert done.exit_code == 0, done.stderr
    assert "3 requests. A dry run: nothing was sent, nothing is held." in done.stdout
    found = it.told("submit", requests(3), "--dry-run", "--tier", "opus")
    (tier,) = found["by_tier"]
    assert (tier["tier"], tier["requests"]) == ("opus", 3)
    assert tier["as_calls"] == tier["on_top_tier"] == 2 * tier["expected"] > 0
    assert it.fake.requests == []
    assert not Path("a.db").exists() or it.run("jobs").stdout == "there are no jobs\n"


def test_what_a_person_cannot_do_is_said_in_a_line(it: World, tmp_path: Path) -> None:
    """With exit code 2, before anything is sent."""
    file = requests(2)
    Path("empty.jsonl").touch()
    cases: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = [
        ("no key: set ANTHROPIC_API_KEY", {"ANTHROPIC_API_KEY": None}, ("submit", file)),
        ("which store?", {"TIERLINE_STORE": None}, ("submit", file)),
        ("there is no file", {"TIERLINE_STORE": "sqlite:///none.db"}, ("status", "j")),
        ("empty.jsonl: there is nothing in it", {}, ("submit", "empty.jsonl")),
        ("No such file", {}, ("submit", "none.jsonl")),
        ("--floor: there is no tier 'gold'", {}, ("submit", file, "--floor", "gold")),
        ("is not an amount of money", {}, ("submit", file, "--budget", "lots")),
        ("there is no job 'j'", {}, ("results", "j")),
        ("there is no job 'j'", {}, ("cancel", "j")),
        ("leave one of them out", {}, ("jobs", "--store", it.store, "--app", "x:y")),
    ]
    assert it.run("submit", requests(1, "one.jsonl"), "--wait").exit_code == 0
    before = len(it.fake.requests)
    for why, environment, arguments in cases:
        done = it.run(*arguments, **environment)
        assert done.exit_code == 2, (arguments, done.output)
        assert why in done.stderr
        assert "Traceback" not in done.stderr
    assert len(it.fake.requests) == before


def test_the_budgets_of_an_app_are_kept(it: World) -> None:
    """Without the app a store with hard budgets is not spent from, unless that is said; with it they hold."""
    by_app = ("--wait", "--app", APP, "--factory")
    found = it.told("submit", requests(3), *by_app, TEST_STORE=it.store)
    assert (found["succeeded"], found["by_tier"][0]["tier"]) == (3, "haiku")
    other = requests(4)
    refused = it.run("submit", other, "--wait")
    assert refused.exit_code == 2
    assert "the store has hard budgets of an app (day)" in refused.stderr
    full = it.run("submit", other, *by_app, TEST_STORE=it.store, TEST_BUDGET="$0.000001/day")
    assert full.exit_code == 2
    assert "line 1: budget 'day' has $0.00 left" in full.stderr
    assert sent(it.fake) == 3
    assert it.told("submit", other, "--wait", "--without-budgets")["succeeded"] == 4


def test_a_budget_for_one_job(it: World) -> None:
    """What has no room in it is refused, and the job may be given again."""
    done = it.run("submit", requests(3), "--wait", "--budget", "$0.000001")
    assert done.exit_code == 2
    assert "nothing could be sent, and the job is forgotten" in done.stderr
    assert sent(it.fake) == 0
    assert it.told("submit", requests(3), "--wait", "--budget", "$1")["succeeded"] == 3


def test_a_submit_that_is_cut_off_goes_on(it: World) -> None:
    """By Ctrl-C after the second page, then by kill -9 after one more: the same command takes in the rest, once."""
    file = requests(900)
    stopped = it.process("submit", file, "--wait", TEST_SIGNAL="SIGINT 2")
    assert stopped.returncode == 130, stopped.stderr
    assert "what was taken in is kept, and the same command goes on" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    killed = it.process("submit", file, "--wait", TEST_SIGNAL="SIGKILL 1")
    assert killed.returncode == -9
    assert "was cut off: 500 were taken in, and it goes on from there" in killed.stderr
    again = it.process("submit", file, "--wait", "--json")
    assert again.returncode == 0, again.stderr
    assert "was cut off: 750 were taken in, and it goes on from there" in again.stderr
    found = json.loads(again.stdout)
    assert (found["submitted"], found["succeeded"], found["cost"]) == (900, 900, it.fake.billed)
    assert sent(it.fake) == 900


def test_results_go_on_where_they_were_cut_off(it: World) -> None:
    """In the midst of a line, too; and are not mixed with those of something else."""
    it.run("submit", requests(5), "--wait", "--job", "j")
    it.run("results", "j", "-o", "whole.jsonl")
    whole = Path("whole.jsonl").read_bytes()
    for cut in (0, 10, len(whole) - 3, len(whole)):
        Path("out.jsonl.part").write_bytes(whole[:cut])
        assert it.run("results", "j", "-o", "out.jsonl").exit_code == 0
        assert Path("out.jsonl").read_bytes() == whole
        assert not Path("out.jsonl.part").exists()
        assert it.run("results", "j", "-o", "out.jsonl").exit_code == 2
        Path("out.jsonl").unlink()
    Path("out.jsonl.part").write_text("something else\n", encoding="utf-8")
    done = it.run("results", "j", "-o", "out.jsonl")
    assert (done.exit_code, "has not what this command writes" in done.stderr) == (2, True)
    assert Path("out.jsonl.part").read_text(encoding="utf-8") == "something else\n"
    assert it.run("results", "j", "-o", "whole.jsonl", "--force").exit_code == 0
    assert Path("whole.jsonl").read_bytes() == whole


def test_results_by_id_and_those_that_failed(it: World) -> None:
    """An id that is of no request is said."""
    Path("a.csv").write_text("id,text\na,x\nb\nc,y\n", encoding="utf-8")
    it.run("submit", "a.csv", *PROMPT, "--wait", "--job", "j")
    done = it.run("results", "j", "--id", "c", "--id", "zz")
    assert (done.exit_code, [json.loads(each)["custom_id"] for each in done.stdout.splitlines()]) == (1, ["c"])
    assert "no request of job j has the id zz" in done.stderr
    (failed,) = it.run("results", "j", "--failed", "-o", "-").stdout.splitlines()
    assert json.loads(failed)["result"]["error"]["error"]["message"].startswith("line 3: it has 1 cells")


def test_a_job_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key it is shown as the store has it; `cancel` ends it, at the API too."""
    monkeypatch.chdir(tmp_path)
    began = time.time()
    fake = FakeClaude(clock=lambda: began, batch_delay=3600)
    with fake.serve_in_thread() as url:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", fake.api_key)
        it = World(fake, f"sqlite:///{tmp_path}/a.db")
        found = it.told("submit", requests(2), "--job", "j")
        assert (found["state"], found["processing"]) == ("in_progress", 2)
        assert it.told("status", "j", ANTHROPIC_API_KEY=None)["processing"] == 2
        waiting = it.run("results", "j", ANTHROPIC_API_KEY=None)
        assert (waiting.exit_code, "With --now there is what the store has" in waiting.stderr) == (2, True)
        now = it.run("results", "j", "--now", "-o", "out.jsonl")
        assert (now.exit_code, "is not at its end" in now.stderr) == (2, True)
        assert it.run("delete", "j").exit_code == 2
        it.told("cancel", "j")
        assert [each.path for each in fake.requests if each.path.endswith("/cancel")] != []
        fake.advance(3600)
        found = it.told("status", "j", "--wait", code=1)
        assert (found["state"], found["canceled"], found["cost"]) == ("ended", 2, 0)


def test_what_a_file_says_does_not_move_the_cursor(it: World, tmp_path: Path) -> None:
    """A field, or a column, may be called anything, and is quoted where it is wrong: a terminal obeys none of it."""
    for name, text in (
        ("a.jsonl", '{"custom_id":"a","params":{},"\\u001b]0;x\\u0007":1}'),
        ("a.csv", "a\x1b]0;x\x07,b\n1,2"),
    ):
        (tmp_path / name).write_text(text, "utf-8")
        done = it.run("submit", str(tmp_path / name), "--dry-run", ANTHROPIC_API_KEY=None, TIERLINE_STORE=None)
        assert done.exit_code == 2
        assert "·]0;x·" in done.output
        assert not {"\x1b", "\x07"} & set(done.output)
