"""The command `tierline`, as a person or a build runs it."""

from __future__ import annotations

import json
import os
import pty
import random
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from tests.decisionlog.writer import decision
from tests.needs import need
from tierline.classify import FixedClassifier
from tierline.classify.training import Example, fit
from tierline.decisionlog import record_of
from tierline.evaluation.intervals import Interval
from tierline.evaluation.rows import outcomes, read
from tierline.values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

need("typer", "rich")

from tierline.cli.app import app  # noqa: E402
from tierline.cli.show import amount, bounds  # noqa: E402

ROOT = Path(__file__).parents[2]
CTRL_C = b"\x03"
PATIENCE = 30.0
"""Seconds after which what has not ended never will."""
LADDER = "haiku=claude-haiku-5-5,opus=claude-opus-5-5"

always_complex = FixedClassifier("complex")
"""A classifier of an app's own, for `--classifier tests.cli.test_cli:always_complex`."""


def run(*arguments: object, keys: str | None = None) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=keys, env={"COLUMNS": "160"})


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Rows of which a quarter is complex."""
    rows = [{"id": f"r{n}", "text": f"question {n} ✓", "label": "simple" if n % 4 else "complex"} for n in range(240)]
    return write(tmp_path / "labels.jsonl", *rows)


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    """Requests on two tiers; the dear one is better where there are tools."""
    rng = random.Random(1)  # noqa: S311
    rows = [
        {"id": f"r{n}", "text": "call it", "tools": n % 2, "route": f"/{n % 2}", "tier": tier,
         "good": int(tier == "opus" or rng.random() < (0.3 if n % 2 else 0.9))}
        for n in range(220) for tier in ("haiku", "opus")
    ]  # fmt: skip
    return write(tmp_path / "graded.jsonl", *rows)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Three hundred decisions: one route is rare, and one decision in ten is doubtful."""
    usage = Usage(1_000, 200)
    return write(
        tmp_path / "decisions.jsonl",
        *(
            record_of(
                decision(f"d{n}", route="/rare" if n % 100 == 7 else "/often", usage=usage, cost=1_000_000),
                at=n,
                outcome="ok" if n % 50 else "refused",
                text=f"text {n} <é>",
            )
            | {"confidence": 0.55 if n % 10 == 0 else 0.95}
            for n in range(300)
        ),
    )


def test_eval_of_labels(labels: Path) -> None:
    """Every measure with an interval, the confusion matrix, and what a reader is warned of."""
    done = run("eval", labels, "--classifier", "tests.cli.test_cli:always_complex")
    assert done.exit_code == 0
    assert "agreement" in done.stdout
    assert "25.0%" in done.stdout  # Wilson: 60 of 240 is 19.9% to 30.8%
    assert "19.9% to 30.8%" in done.stdout
    assert "under 80%" in done.stdout
    assert "rows by label" in done.stdout
    found = json.loads(run("eval", labels, "--classifier", "tests.cli.test_cli:always_complex", "--json").stdout)
    figures = found["labels"]["figures"]
    assert found["labels"]["rows"] == 240
    assert figures["too dear: money wasted"]["value"] == 0.75
    assert figures["too cheap: quality lost"]["value"] == 0
    assert figures["price"] == figures["price all on the top tier"]
    assert figures["calibration error of its confidence"]["value"] == pytest.approx(0.75)
    assert found["labels"]["confusion"] == {"complex": {"complex": 60}, "simple": {"complex": 180}}
    assert all(each["low"] <= each["value"] <= each["high"] for each in figures.values())


def test_eval_against_another_ladder(labels: Path) -> None:
    """The same labels on models of another price; names must be the same."""
    other = "haiku=claude-haiku-4-5,sonnet=claude-sonnet-4-5,opus=claude-opus-4-5"
    figures = json.loads(run("eval", labels, "--against", other, "--json").stdout)["labels"]["figures"]
    assert figures["price on the other ladder"]["value"] > figures["price"]["value"] > 0
    done = run("eval", labels, "--against", "haiku=claude-haiku-4-5")
    assert (done.exit_code, "no tier 'sonnet'" in done.stderr) == (2, True)


def test_eval_of_weights_of_ones_own(labels: Path, tmp_path: Path) -> None:
    """A file of weights is a classifier; one of something else is an error."""
    words = [("ping the box", "simple"), ("weigh the box", "moderate"), ("prove the box", "complex")] * 20
    (tmp_path / "w").write_bytes(fit([Example(text, label) for text, label in words]).pack())
    rows = write(tmp_path / "rows.jsonl", *({"text": text, "label": label} for text, label in words[:6]))
    found = json.loads(run("eval", rows, "--classifier", tmp_path / "w", "--json").stdout)
    assert found["labels"]["figures"]["agreement"]["value"] == 1.0
    done = run("eval", rows, "--classifier", labels)
    assert (done.exit_code, "cannot be read" in done.stderr) == (2, True)


def test_min_agreement_is_an_exit_code(labels: Path, graded: Path) -> None:
    """1 below it, 0 otherwise, 2 where there are no labels to agree with."""
    command = ("eval", labels, "--classifier", "tests.cli.test_cli:always_complex", "--min-agreement")
    assert run(*command, 0.25).exit_code == 0
    below = run(*command, 0.26)
    assert (below.exit_code, "agreement is 25.0%, under 26.0%" in below.stderr) == (1, True)
    without = run("eval", graded, "--min-agreement", 0.5)
    assert (without.exit_code, "has no labels" in without.stderr) == (2, True)


def test_eval_of_outcomes(graded: Path) -> None:
    """Grades by tier, APGR and cost at 95%; a classifier that is worse than random is named."""
    figures = json.loads(run("eval", graded, "--ladder", LADDER, "--json").stdout)["outcomes"]["figures"]
    assert figures["good on opus"]["value"] == 1.0
    assert figures["APGR by text (cascade)"]["low"] <= figures["APGR by text (cascade)"]["value"]
    assert 0 < figures["cost at 95% by text (cascade)"]["value"] < 1
    unknown = run("eval", graded, "--ladder", "small=claude-haiku-5-5")
    assert unknown.exit_code == 2
    assert "line 1: tier 'haiku' is not on the ladder" in unknown.stderr


def test_eval_of_a_log(log: Path) -> None:
    """What was spent, by whom it was chosen, and what it would cost with other models."""
    other = "haiku=claude-haiku-4-5,sonnet=claude-sonnet-4-5,opus=claude-opus-4-5"
    found = json.loads(run("eval", log, "--against", other, "--json").stdout)["decisions"]
    assert found["rows"] == 300
    assert found["by_tier"] == {"haiku": 300}
    assert found["figures"]["price"]["value"] == 1_000_000 * 1000
    assert found["figures"]["price on the other ladder"]["value"] == (1_000 * 1_000 + 200 * 5_000) * 1000
    assert found["figures"]["not answered"]["value"] == pytest.approx(6 / 300)


def test_money_and_bounds_as_people_read_them() -> None:
    """A minus stands before the dollar, and no bounds are a dash."""
    assert amount(-0.2635e9, "nano-USD per 1000") == "-$0.2635"
    assert bounds(Interval(1.0, float("-inf"), float("inf")), "nano-USD per 1000") == "-"


def test_curve(graded: Path) -> None:
    """A table from all cheap to all dear."""
    done = run("curve", graded, "--ladder", LADDER)
    assert done.exit_code == 0
    assert "100%" in done.stdout
    assert "1.000" in done.stdout
    told = json.loads(run("curve", graded, "--ladder", LADDER, "--json").stdout)
    assert (told["cheap"], told["dear"], told["requests"]) == ("haiku", "opus", 220)
    assert [round(point["share"], 6) for point in told["curve"]] == [step / 10 for step in range(11)]
    assert told["curve"][-1]["quality"] == 1.0
    assert told["curve"][0]["cost"] < told["curve"][-1]["cost"]
    single = write(graded.with_name("one.jsonl"), {"text": "x", "tier": "haiku", "good": 1})
    none = run("curve", single)
    assert (none.exit_code, "no request was graded on two tiers" in none.stderr) == (2, True)


def test_a_picture(graded: Path, tmp_path: Path) -> None:
    """SVG and PNG; a name of another kind is refused before anything is read."""
    need("matplotlib")
    for name, begins in (("c.svg", b"<?xml"), ("c.png", b"\x89PNG")):
        assert run("curve", graded, "--ladder", LADDER, "--out", tmp_path / name).exit_code == 0
        assert (tmp_path / name).read_bytes().startswith(begins)
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "c.png").stat().st_mode & 0o777 == 0o666 & ~mask
    assert run("curve", graded, "--out", tmp_path / "c.txt").exit_code == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c.png", "c.svg", "graded.jsonl"]


def test_sample_draws_the_doubtful_and_the_rare(log: Path, tmp_path: Path) -> None:
    """Each route has its turn, doubtful decisions first; the grades are outcomes, and the next time goes on."""
    out = tmp_path / "grades.jsonl"
    done = run("sample", log, "-n", 6, "--out", out, keys="y\nn\nwhat\ns\nq\n")
    assert done.exit_code == 0
    assert "press y, n, s or q" in done.stdout
    assert "<é>" in done.stdout
    given = list(outcomes(out))
    assert [outcome.good for outcome in given] == [1.0, 0.0]
    assert {outcome.route for outcome in given} == {"/rare", "/often"}
    assert all(outcome.source == "person" and outcome.tier == "haiku" for outcome in given)
    first = {row.id for row in read(out)}
    run("sample", log, "-n", 6, "--out", out, keys="y\n" * 6)
    ids = [row.id for row in read(out)]
    assert len(ids) == len(set(ids)) == 8
    assert first < set(ids)
    doubtful = [ident for ident in ids if int(ident[1:]) % 10 == 0]
    assert len(doubtful) >= 4
    assert out.stat().st_mode & 0o777 == 0o600
    assert run("eval", out).exit_code == 0


def test_sample_as_json_asks_nobody(log: Path, tmp_path: Path) -> None:
    """The same decisions as lines, each a grade but for `good`; nothing is written, and graded ones are left out."""
    out = tmp_path / "grades.jsonl"
    done = run("sample", log, "-n", 6, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert not out.exists()
    assert len(lines) == 6
    assert all(line["why"] and line["tier"] == "haiku" and "good" not in line for line in lines)
    write(out, *({**line, "good": 1} for line in lines))
    assert {outcome.good for outcome in outcomes(out)} == {1.0}
    again = [json.loads(line) for line in run("sample", log, "-n", 6, "--out", out, "--json").stdout.splitlines()]
    assert not {line["id"] for line in lines} & {line["id"] for line in again}


def test_sample_is_the_same_for_a_seed(log: Path, tmp_path: Path) -> None:
    """Whatever the order of the log; another seed draws others."""
    shuffled = log.read_text("utf-8").splitlines(keepends=True)
    random.Random(3).shuffle(shuffled)  # noqa: S311
    (tmp_path / "shuffled.jsonl").write_text("".join(shuffled), "utf-8")

    def drawn(path: Path, out: str, seed: int = 0) -> list[str]:
        run("sample", path, "-n", 10, "--seed", seed, "--out", tmp_path / out, keys="y\n" * 10)
        return [row.id for row in read(tmp_path / out)]

    assert drawn(log, "a") == drawn(tmp_path / "shuffled.jsonl", "b")
    assert drawn(log, "c") != drawn(log, "d", seed=1)


def test_sample_loses_nothing_when_it_is_interrupted(log: Path, tmp_path: Path) -> None:
    """A person grades two in a real terminal and presses Ctrl-C: both are there, and the next time goes on."""
    out = tmp_path / "grades.jsonl"
    person = at_a_terminal("-m", "tierline.cli", "sample", str(log), "--out", str(out))
    assert person.types(b"y\n", b"n\n", CTRL_C) == 0
    assert [outcome.good for outcome in outcomes(out)] == [1.0, 0.0]
    with out.open("ab") as file:
        file.write(b'{"id": "cut off')
    assert run("sample", log, "--out", out, keys="y\nq\n").exit_code == 0
    assert len(list(read(out))) == 3


def test_one_ctrl_c_is_enough(log: Path, tmp_path: Path) -> None:
    """Also where it is pressed when `input` has looked for signals, and does not read yet: it would wait for ever."""
    begun = (
        "import ctypes; from tierline.cli.app import app; "
        # What the interpreter calls at that very moment. This one returns when a signal comes.
        "hook = ctypes.c_void_p.in_dll(ctypes.pythonapi, 'PyOS_InputHook'); "
        "hook.value = ctypes.cast(ctypes.CDLL(None).pause, ctypes.c_void_p).value; app()"
    )
    person = at_a_terminal("-c", begun, "sample", str(log), "--out", str(tmp_path / "grades.jsonl"))
    assert person.types(CTRL_C) == 0
    assert b"nothing was graded" in person.seen


class at_a_terminal:  # noqa: N801  (it reads as one says it)
    """Python at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.seen = b""
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=lambda: _own_terminal(slave),  # noqa: PLW1509
        )
        os.close(slave)

    def types(self, *keys: bytes) -> int:
        """A key at each prompt. The exit code."""
        try:
            for prompts, key in enumerate(keys, 1):
                self._see(lambda prompts=prompts: self.seen.count(b"uit ") >= prompts)
                os.write(self._master, key)
            self._see(lambda: False)
            return self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._master)

    def _see(self, enough: Callable[[], bool]) -> None:
        """Read what is shown, until that is enough or the program has ended."""
        while not enough():
            ready, _, _ = select.select([self._master], [], [], PATIENCE)
            assert ready, f"nothing happens after {self.seen[-200:]!r}"
            try:
                self.seen += os.read(self._master, 4096)
            except OSError:  # nobody writes there any more
                return


def _own_terminal(slave: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def test_a_prompt_commands_no_terminal(tmp_path: Path) -> None:
    """Escape sequences of whoever wrote it are shown and not done; the grade keeps the text as it was."""
    text = "see \x1b]0;owned\x07\x1b[2J[red]this[/red] 猫"
    log = write(tmp_path / "d.jsonl", record_of(decision("a", route="/x"), at=0, outcome="ok", text=text))
    done = run("sample", log, "--out", tmp_path / "g.jsonl", keys="y\n")
    assert "\x1b" not in done.stdout
    assert "[red]this[/red] 猫" in done.stdout
    assert [row.text for row in read(tmp_path / "g.jsonl")] == [text]


def test_nothing_to_sample(labels: Path, tmp_path: Path) -> None:
    """A file without decisions, and a grades file that is something else."""
    done = run("sample", labels, "--out", tmp_path / "g.jsonl")
    assert (done.exit_code, "no answered decision" in done.stderr) == (2, True)
    assert not (tmp_path / "g.jsonl").exists()


@pytest.mark.parametrize(
    "there",
    [
        "a note\nof my own",
        '{"text": "x", "label": "simple"}\n{"text": "y", "label": "simple"}',
        "\udcff",
        '{"id": "d1"}',
    ],
)
def test_a_file_of_something_else_stays_as_it_is(log: Path, tmp_path: Path, there: str) -> None:
    """Whoever mistakes the name after --out loses no line of that file."""
    out = tmp_path / "mine.jsonl"
    data = there.encode("utf-8", "surrogateescape")
    out.write_bytes(data)
    done = run("sample", log, "--out", out, keys="y\nq\n")
    assert (done.exit_code, "it is no grade" in done.stderr) == (2, True)
    assert out.read_bytes() == data


def test_a_last_grade_without_its_end(log: Path, tmp_path: Path) -> None:
    """As an editor may leave it: it stays a grade, and the next one is a line of its own."""
    out = tmp_path / "g.jsonl"
    assert run("sample", log, "--out", out, keys="y\nq\n").exit_code == 0
    out.write_bytes(out.read_bytes().rstrip(b"\n"))
    assert run("sample", log, "--out", out, keys="n\nq\n").exit_code == 0
    assert [outcome.good for outcome in outcomes(out)] == [1.0, 0.0]


@pytest.mark.parametrize(("name", "told"), [("none/g.jsonl", "no directory"), ("g.csv", "ends in .jsonl")])
def test_no_question_before_its_answer_can_be_kept(log: Path, tmp_path: Path, name: str, told: str) -> None:
    """Nobody grades for nothing."""
    done = run("sample", log, "--out", tmp_path / name, keys="y\nq\n")
    assert (done.exit_code, told in done.stderr, done.stdout) == (2, True, "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("eval", "none.jsonl"), "none.jsonl is no file"),
        (("eval", "{labels}", "--classifier", "magic"), "no classifier 'magic': write default"),
        (("eval", "{labels}", "--classifier", "tests.cli.test_cli:nothing"), "cannot be imported"),
        (("eval", "{labels}", "--ladder", "haiku"), "is no ladder"),
        (("eval", "{labels}", "--ladder", "a=mystery-1"), "model 'mystery-1' has no price"),
        (("eval", "{bad}"), "line 2: label is 'easy'"),
        (("curve", "{labels}", "--out", "none/c.svg"), "--out none/c.svg: there is no directory none"),
        (("train", "{labels}", "--out", "none/w"), "--out none/w: there is no directory none"),
        (("train", "{labels}", "--out", "tests"), "--out tests: that is a directory"),
    ],
)
def test_errors_are_one_line(labels: Path, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2, what is wrong and what to do, and no traceback."""
    bad = write(tmp_path / "bad.jsonl", {"text": "x", "label": "simple"}, {"text": "x", "label": "easy"})
    done = run(*(argument.format(labels=labels, bad=bad) for argument in arguments))
    assert done.exit_code == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_a_large_file_is_streamed(tmp_path: Path) -> None:
    """Fifty megabytes of labels take no fifty megabytes of memory."""
    path = tmp_path / "large.jsonl"
    row = json.dumps({"text": "word " * 10_000, "label": "simple"}) + "\n"
    path.write_text(row * 1_000)
    code = (
        "import resource, sys\nfrom tierline.cli.evaluate import measured\nfrom pathlib import Path\n"
        "measured(Path(sys.argv[2]), 'tests.cli.test_cli:always_complex', '', '', 300)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "measured(Path(sys.argv[1]), 'tests.cli.test_cli:always_complex', '', '', 300)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    small = write(tmp_path / "small.jsonl", {"text": "x", "label": "simple"})
    command = [sys.executable, "-c", code, str(path), str(small)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
    assert int(done.stdout) < 20_000  # KiB


def test_without_its_extra(tmp_path: Path) -> None:
    """It says what to install."""
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    command = [sys.executable, "-m", "tierline.cli"]
    done = subprocess.run(  # noqa: S603
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert (done.returncode, done.stderr) == (
        2,
        "the command `tierline` needs typer and rich: pip install 'tierline[cli]'\n",
    )


def test_where_nobody_may_write(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before the first question."""
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    done = run("sample", log, "--out", tmp_path / "g.jsonl", keys="y\n")
    assert (done.exit_code, "you may not write there" in done.stderr, done.stdout) == (2, True, "")


def test_grades_have_their_time(log: Path, tmp_path: Path) -> None:
    """When a person graded is written down, in seconds since the epoch."""
    out = tmp_path / "grades.jsonl"
    run("sample", log, "-n", 1, "--out", out, keys="y\n")
    assert json.loads(out.read_text())["at"] == pytest.approx(time.time(), abs=60)
