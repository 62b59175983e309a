"""What is no text is known as such, and text in any language is not taken for it."""

from __future__ import annotations

import base64
from random import Random

import pytest

from tierline.classify import LocalClassifier, View
from tierline.classify.prose import is_prose
from tierline.evaluation.opinions import Offline
from tierline.features import read

RANDOM = Random(7)  # noqa: S311
SMALL = "abcdefghijklmnopqrstuvwxyz"


def letters(count: int) -> str:
    return "".join(RANDOM.choice(SMALL) for _ in range(count))


NO_TEXT = {
    "base64": base64.b64encode(RANDOM.randbytes(900)).decode(),
    "a short key": base64.b64encode(RANDOM.randbytes(30)).decode(),
    "base64 in lines": base64.encodebytes(RANDOM.randbytes(900)).decode(),
    "a question and base64": f"What is this? {base64.b64encode(RANDOM.randbytes(600)).decode()}",
    "hexadecimal": RANDOM.randbytes(300).hex(),
    "hashes in lines": "\n".join(RANDOM.randbytes(16).hex() for _ in range(20)),
    "signs": "".join(chr(RANDOM.randrange(33, 127)) for _ in range(500)),
    "letters and blanks": "".join(RANDOM.choice(f"{SMALL}    ") for _ in range(600)),
    "made-up words": " ".join(letters(RANDOM.randrange(3, 9)) for _ in range(80)),
}
TEXTS = {
    "English": "Can you explain quantum mechanics to me like I'm five, with an example?",
    "a word": "Hi",
    "a formula": "Compute $i+i^2+i^3+\\cdots+i^{258}+i^{259}$.",
    "roots": "Find $a$: $\\sqrt{4+\\sqrt{16+16a}}+ \\sqrt{1+\\sqrt{1+a}} = 6.$ Then $\\int f(x) dx$ for $ax^2+bx+c$.",
    "code": "def f(x):\n    return [y for y in x if y > 3]\nWhy is this slow?",
    "French": "Lorsque la barque arrive, j'aimerais acquérir quelques chèques au marché de Jacques.",
    "Polish": "Proszę wyjaśnić najbardziej znane dzieło tego poety i wskazać, czym różni się od innych.",
    "Dutch": "Kun je mij uitleggen waarom het moeilijk is om een mooi huis te kopen in Nijmegen?",
    "Chinese": "请解释一下量子力学的基本原理，并举一个例子。",
    "Chinese in Latin letters": "Qing wen, Beijing de Qianmen qu zenme zou? Xie xie nin.",
    "Japanese": "量子コンピュータの仕組みを例を挙げて説明してください。",
    "Arabic": "اشرح لي مبادئ ميكانيكا الكم مع مثال بسيط من فضلك",
}


@pytest.mark.parametrize("name", NO_TEXT)
async def test_of_what_is_no_text_nothing_is_known(name: str) -> None:
    """Its familiarity is 0, its chances are the prior, and there is no opinion on it."""
    text = NO_TEXT[name]
    assert not is_prose(read(text))
    local = LocalClassifier()
    opinion = local.opinion(text)
    assert opinion.familiarity == 0
    assert opinion.probabilities == local.probabilities("")
    assert await local.classify(View(text), Offline()) is None


@pytest.mark.parametrize("name", TEXTS)
def test_text_may_be_known(name: str) -> None:
    """In whatever language, script or notation."""
    assert is_prose(read(TEXTS[name]))
