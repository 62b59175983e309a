"""Fuzz what reads bytes of others, led by which branches an input reaches: `make fuzz`, `make fuzz TARGETS="body"`.

    python -m tests.fuzz.fuzz [--seconds N] [--jobs N] [TARGET …]

Each target gets so many seconds, in a process of its own. It begins with its seeds in `corpus/`; what it finds on the
way is kept in `.fuzz/`, which is not committed, and where the next run begins. An input that fails is left in
`.fuzz/failed/`: mend what it shows, and put it into `corpus/`, where the suite tries it for ever.

What is JSON is changed as JSON, too, for bytes that are changed at random are hardly ever JSON any more.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = Path(__file__).with_name("corpus")
KEPT: Final = ROOT / ".fuzz"
_STRUCTURED: Final = 0.6
_DROPPED: Final = 0.2
_ODD: Final = (
    None, True, False, 0, -1, 1, 0.5, 10**9, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "0", "\ud800",
    "a" * 500, [], {}, [[]], {"": {}}, [None],
)  # fmt: skip
LONGEST: Final = 8_192
"""Bytes of an input."""


def one(name: str, seconds: int) -> bool:
    """Fuzz a target. Whether nothing was found."""
    kept, failed = KEPT / name, KEPT / "failed"
    for folder in (kept, failed):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in (CORPUS / name).iterdir():
        shutil.copy(seed, kept)
    command = [
        sys.executable, "-m", "tests.fuzz.fuzz", "--inside", name, str(kept), f"-max_total_time={seconds}",
        f"-max_len={LONGEST}", "-timeout=20", "-rss_limit_mb=4096", f"-artifact_prefix={failed}/{name}-",
        "-print_final_stats=1",
    ]  # fmt: skip
    with (KEPT / f"{name}.log").open("w") as log:
        code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False).returncode  # noqa: S603
    stats = dict(
        line.removeprefix("stat::").split(":", 1)
        for line in (KEPT / f"{name}.log").read_text(errors="replace").splitlines()
        if line.startswith("stat::")
    )
    told = f"{int(stats.get('number_of_executed_units', 0)):>10,} inputs, {len(list(kept.iterdir())):>5,} kept"
    sys.stdout.write(f"{name:<14} {told}  {'nothing found' if not code else f'FAILED: see .fuzz/{name}.log'}\n")
    sys.stdout.flush()
    return not code


def inside(name: str, arguments: list[str]) -> None:
    """The process of one target."""
    import logging

    import atheris

    logging.disable()
    with atheris.instrument_imports(include=["tierline"]):
        from tests.fuzz.targets import TARGETS
    seeds = [documents for seed in (CORPUS / name).iterdir() if (documents := _parsed(seed.read_bytes()))]

    def changed(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)  # noqa: S311
        documents = _parsed(data) if seeds and chance.random() < _STRUCTURED else None
        if documents is None:
            return bytes(atheris.Mutate(data, most))
        for _ in range(chance.randint(1, 4)):
            _change(documents, chance, chance.choice(seeds))
        return b"\n".join(json.dumps(each).encode() for each in documents)[:most]

    atheris.Setup([name, *arguments], TARGETS[name], custom_mutator=changed)
    atheris.Fuzz()


def _parsed(data: bytes) -> list[Any] | None:
    """The documents of JSON lines, in a list; None where one of them is none."""
    try:
        return [json.loads(line) for line in data.decode().lstrip("\0\1\2\3").splitlines()] or None
    except (ValueError, RecursionError):
        return None


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each container within, with each key or index of it."""
    here = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in here for place in ((value, key), *_places(inner))]


def _change(documents: list[Any], chance: random.Random, other: list[Any]) -> None:
    """Change one place: take it away, or put another value there, of a seed's or of those that are often forgotten."""
    places = _places(documents)
    if not places:
        return
    container, key = chance.choice(places)
    if chance.random() < _DROPPED:
        del container[key]
        return
    found, name = chance.choice(_places(other))
    container[key] = copy.deepcopy(found[name] if chance.random() < _STRUCTURED else chance.choice(_ODD))


def main() -> None:
    """Fuzz all targets, or some. SystemExit where one has found something."""
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("targets", nargs="*", metavar="TARGET", help="those alone")
    read.add_argument("--seconds", type=int, default=120, help="for each target (120)")
    read.add_argument("--jobs", type=int, default=os.cpu_count(), help="targets at a time")
    said = read.parse_args()
    names = said.targets or sorted(folder.name for folder in CORPUS.iterdir())
    with ThreadPoolExecutor(said.jobs) as pool:
        found = list(pool.map(lambda name: one(name, said.seconds), names))
    sys.exit(not all(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2], sys.argv[3:])
    else:
        main()
