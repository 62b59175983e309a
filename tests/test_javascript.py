"""The JavaScript of the pages has no fault that can be seen without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.needs import need

need("tree_sitter", "tree_sitter_javascript")

from scripts.javascript import FOLDERS, faults  # noqa: E402  (needs the above)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_the_pages_have_no_faults(folder: Path) -> None:
    """Everything can be parsed, every name is declared, every import is there and used."""
    assert len(list(folder.glob("*.js"))) > 2
    assert faults(folder) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("const a = ;", "this cannot be parsed"),
        ("function f() {", "this cannot be parsed"),
        ("const rows = 1;\nconsole.log(row);", "2: nothing declares row"),
        ("const f = ({ a, b: c = 1, ...d }, [e], g = a) => a + b + c + d + e + g; f();", "nothing declares b"),
        ('import { one } from "./nowhere.js";\none();', "there is no nowhere.js"),
        ('import { one } from "./other.js";\none();', "other.js does not export one"),
        ('import { two, three as four } from "./other.js";\ntwo();', "four is not used"),
    ],
)
def test_faults_are_found(tmp_path: Path, text: str, fault: str) -> None:
    """One in each file, and nothing else is said of it."""
    (tmp_path / "other.js").write_text("export const two = 2, three = 3;\nexport class Five {}\n")
    (tmp_path / "page.js").write_text(text)
    (found,) = faults(tmp_path)
    assert found.startswith("page.js:")
    assert found.endswith(fault)


def test_what_is_fine(tmp_path: Path) -> None:
    """Names that are declared in any of the ways there are."""
    (tmp_path / "other.js").write_text("export function two() {}\n")
    (tmp_path / "page.js").write_text(
        'import { two as three } from "./other.js";\n'
        "const [a, { b, c: d }] = three();\n"
        "for (const e of a) try { f(e?.b ?? { b }, d); } catch (error) { console.error(error); }\n"
        "async function* f(g, ...h) { yield* await g.map((i) => i * h.length); }\n"
    )
    assert faults(tmp_path) == []
