"""Rules on words: clear on one side, or silent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.classify import KeywordClassifier, View
from tierline.classify import keyword as module
from tierline.classify.phrases import COMPLEX, LOOKUPS, SIMPLE
from tierline.errors import ConfigurationError

DEFAULT = KeywordClassifier()
WORDS = sorted({word.rstrip("*") for phrase in (*SIMPLE, *COMPLEX) for word in phrase.split()})


async def label_of(text: str, classifier: KeywordClassifier = DEFAULT, **view) -> str | None:
    opinion = await classifier.classify(View(text, **view), None)
    return None if opinion is None else opinion.label


@pytest.mark.parametrize(
    "text",
    [
        "Classify this ticket as bug or feature: the button is grey.",
        "Please translate to German: the train is late.",
        "Hi! Could you please extract all the email addresses from the text below?",
        "Rename the variable x to total.",
        "Here is a mail.\n\nAnswer yes or no: does it ask for money?",
        "What is the capital of France?",
        "Who wrote Middlemarch?",
        "Format this as a table",
    ],
)
async def test_small_tasks_are_simple(text):
    """A small task that opens an instruction is simple, and sure."""
    opinion = await DEFAULT.classify(View(text), None)
    assert (opinion.label, opinion.confidence, opinion.source) == ("simple", 0.9, "keyword")


@pytest.mark.parametrize(
    "text",
    [
        "Prove that there are infinitely many primes.",
        "Please refactor the billing module so that it can be tested.",
        "Debug this: it hangs every other night.",
        "Here is the draft. Review this contract for liability.",
        "Design a system that takes a million orders an hour.",
    ],
)
async def test_hard_tasks_are_complex(text):
    """A hard task that opens an instruction is complex, and sure."""
    opinion = await DEFAULT.classify(View(text), None)
    assert (opinion.label, opinion.confidence) == ("complex", 0.9)


@pytest.mark.parametrize(
    ("text", "confidence"),
    [("My team has trouble with a race condition.", 0.7), ("Our architecture makes due diligence slow.", 0.85)],
)
async def test_a_hard_word_in_passing_is_not_sure(text, confidence):
    """One word that is only mentioned says little, two say more."""
    opinion = await DEFAULT.classify(View(text), None)
    assert (opinion.label, opinion.confidence) == ("complex", confidence)


@pytest.mark.parametrize(
    "text",
    [
        "Translate this proof into Lean.",
        "Debug the parser. Then rename it.",
        "What is the best architecture?",
        "Extract the clauses, then do a legal review",
    ],
)
async def test_both_sides_are_no_opinion(text):
    """Where words of both sides stand, words do not decide."""
    assert await label_of(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "...!?",
        "Hello there",
        "What is the remainder when 2^3 is divided by 5?",
        "How many houses are there?",
        "The file is in a strange format, and I wonder who changed it",
        "My translator could not translate it",
        "I was improved by prover and disapproved",
        "What is the most sensible way to go about moving a company of four hundred people to another country?",
    ],
)
async def test_no_clear_word_is_no_opinion(text):
    """A simple word in passing, a part of a word, or no word at all is never taken for simple."""
    assert await label_of(text) is None


async def test_a_question_in_a_conversation_is_no_lookup():
    """What looks like a question of fact may be about all that was said."""
    assert await label_of("What is the risk?") == "simple"
    assert await label_of("What is the risk?", context="1. Sell the factory. 2. Move the stock.", turns=2) is None


@pytest.mark.parametrize("phrase", LOOKUPS)
async def test_a_lookup_counts_only_where_little_follows(phrase):
    """In a long text, the same words open anything."""
    assert await label_of(f"{phrase} entropy") == "simple"
    assert await label_of(f"{phrase} entropy " + "and so on " * 10) is None


@pytest.mark.parametrize("phrase", [*SIMPLE, *COMPLEX])
async def test_every_default_phrase_works(phrase):
    """No phrase is there in vain, or against another."""
    assert await label_of(phrase.replace("*", "")) == ("simple" if phrase in SIMPLE else "complex")


@pytest.mark.parametrize(
    "view",
    [{"tools": 3}, {"tools": 1}, {"documents": 1}, {"expected_output": 4_000}, {"tools": 2, "forced_tool": True}],
)
async def test_words_alone_do_not_make_heavy_work_simple(view):
    """With free tools, documents or a long answer, a simple word is not sure."""
    opinion = await DEFAULT.classify(View("Extract the totals", **view), None)
    assert (opinion.label, opinion.confidence) == ("simple", 0.6)


async def test_a_forced_tool_leaves_it_simple():
    """Extraction by a tool that must be called is what it looks like."""
    assert (await DEFAULT.classify(View("Extract the totals", tools=1, forced_tool=True), None)).confidence == 0.9


async def test_the_task_is_looked_at_first():
    """What the app says of a route weighs more than what is in a text."""
    opinion = await DEFAULT.classify(View("Please refactor this", task="Label the ticket"), None)
    assert (opinion.label, opinion.confidence, opinion.reason) == ("simple", 0.9, 'the task has "label the"')


async def test_a_task_that_says_nothing_leaves_the_text():
    """A task without a phrase, or with phrases of both sides, is passed over."""
    assert await label_of("Please refactor this", task="Answers mail") == "complex"
    assert await label_of("Please refactor this", task="Translate and prove") == "complex"


# Phrases of the app's own


async def test_an_apps_phrase_counts_wherever_it_stands():
    """The app knows its traffic."""
    classifier = KeywordClassifier(simple=["order status"], complex=["chargeback*"])
    opinion = await classifier.classify(View("Good morning, I wonder about my order status since Monday"), None)
    assert (opinion.label, opinion.confidence, opinion.reason) == ("simple", 0.9, 'the text has "order status"')
    opinion = await classifier.classify(View("there were two chargebacks on my card"), None)
    assert (opinion.label, opinion.confidence, opinion.reason) == ("complex", 0.9, 'the text has "chargeback*"')


async def test_an_apps_phrases_replace_one_side():
    """The other side keeps the defaults, without what the app has moved."""
    classifier = KeywordClassifier(simple=["refactor"])
    assert await label_of("Translate this", classifier) is None
    assert await label_of("Prove this", classifier) == "complex"
    assert await label_of("It is a small refactor", classifier) == "simple"
    assert await label_of("Prove this", KeywordClassifier(complex=[])) is None


async def test_a_default_phrase_stays_a_guess_in_an_apps_list():
    """Writing the defaults out again, to add to them, does not make them surer."""
    classifier = KeywordClassifier(simple=[*SIMPLE, "order status"])
    assert await label_of("I could not translate it", classifier) is None


@pytest.mark.parametrize(
    ("phrase", "text", "there"),
    [
        ("refactor", "REFACTOR it", True),
        ("refactor", "refactoring it", False),
        ("refactor*", "it was Refactored", True),
        ("refactor*", "prerefactored", False),
        ("step by step", "go step-by-step", True),
        ("step by step", "Step. By step", False),
        ("step by step", "step by", False),
        ("trade-off*", "there are trade offs", True),
        ("what's up", "What\u2019s up", True),
        ("re* the tax*", "reckon the taxes", True),
        ("re* the tax*", "reckon the rates", False),
        ("straße", "Die STRASSE", True),
        ("résumé*", "zwei Re\u0301sume\u0301s", True),
        ("résumé", "resume", False),
        ("докажи*", "ДОКАЖИТЕ это", True),
        ("翻訳", "この文を翻訳して", True),
        ("翻訳", "翻。訳", False),
        ("अनुवाद", "कृपया अनुवाद करें", True),
        ("अनुव", "अनुवाद", False),
        ("prove", "pro\u200bve it", True),
        ("prove", "\uff50\uff52\uff4f\uff56\uff45 it", True),
        ("prove", "\ud800 prove it", True),
        ("c3po", "c3po and r2d2", True),
        ("snake_case", "use snake_case", True),
    ],
)  # fmt: skip
async def test_phrases_match_whole_words_of_any_script(phrase, text, there):
    """Case, hyphens, composition, width and hidden characters do not matter; word and sentence ends do."""
    assert await label_of(text, KeywordClassifier(simple=[], complex=[phrase])) == ("complex" if there else None)


async def test_the_longest_phrase_at_a_place_counts():
    """What says more wins over what says less; at the same length both count."""
    longer = KeywordClassifier(simple=["review"], complex=["review the contract"])
    assert await label_of("Review the contract", longer) == "complex"
    assert await label_of("Review the menu", longer) == "simple"
    assert await label_of("Review it", KeywordClassifier(simple=["rev*"], complex=["review"])) is None


@pytest.mark.parametrize(
    ("simple", "hard", "culprit"),
    [
        ("classify", None, "'classify' is one text"),
        (None, "prove", "'prove' is one text"),
        ([""], None, "'' has no word"),
        (["  "], None, "no word"),
        (["?!"], None, "no word"),
        (["*"], None, r"a \* that is not at the end"),
        (["re*factor"], None, r"'re\*factor' has a \*"),
        (["refactor**"], None, r"has a \*"),
        (["refactor-*"], None, r"has a \*"),
        (["stop. go"], None, "'stop. go' has the end of a sentence"),
        (["a.b"], None, "'a.b' has the end of a sentence"),
        (["x" * 201], None, "longer than 200"),
        ([3], None, "3 is not a text"),
        (None, [None], "None is not a text"),
        (["Refactor"], ["refactor"], "'Refactor' is on both sides"),
    ],
)
def test_bad_phrases_are_named(simple, hard, culprit):
    """A phrase that cannot work is a mistake at start-up, and the message says which one."""
    with pytest.raises(ConfigurationError, match=culprit):
        KeywordClassifier(simple=simple, complex=hard)


@given(st.text(max_size=60), st.text(max_size=60))
async def test_a_reason_quotes_only_what_was_configured(before, after):
    """No word of a prompt reaches a trace through a reason."""
    opinion = await KeywordClassifier(simple=["mark*"], complex=[]).classify(View(f"{before} marking {after}"), None)
    if opinion is not None:
        assert opinion.reason == 'the text has "mark*"'


# What is read, and how much of it


async def test_code_blocks_are_not_instructions():
    """What is quoted as code is data."""
    assert await label_of("Look at\n```\n# prove and refactor\n```\nand tell me") is None
    assert await label_of("```\nrename\n```\nPlease prove it") == "complex"


async def test_the_middle_of_a_long_text_is_not_read():
    """Instructions stand at the start or at the end; words are not cut in two."""
    filler = "x " * 1_000
    assert await label_of(f"Prove it. {filler}") == "complex"
    assert await label_of(f"{filler}. Prove it") == "complex"
    assert await label_of(f"{filler} refactor {filler}") is None
    assert await label_of("x" * 694 + " provenance" + filler) is None
    assert await label_of(filler + "disprove" + "x" * 295) is None


async def test_one_long_word_is_read_as_it_is():
    """A text without a space has nowhere to be cut."""
    assert await label_of("x" * 5_000) is None


@given(st.lists(st.sampled_from([*WORDS, "x", ".", "\n", "-", "```", "the"]), max_size=40).map(" ".join))
async def test_the_fast_way_reads_the_same_words(text):
    """ASCII is split by a table, the rest by expressions: to the same words and sentences."""
    folded = text.casefold()
    slow = [module._WORD.findall(sentence) for sentence in module._BREAK.split(folded)]
    assert list(module._sentences(text)) == slow


def test_the_fast_way_reads_every_ascii_character_the_same():
    """One by one, between letters."""
    for code in range(128):
        text = f"a{chr(code)}B"
        slow = [module._WORD.findall(sentence) for sentence in module._BREAK.split(text.casefold())]
        assert list(module._sentences(text)) == slow, code


@pytest.fixture
def comparisons(monkeypatch):
    """Counts how often a phrase is compared with the words at a place."""
    made: list[int] = []
    at = module._Phrase.at

    def counted(self, words, start):
        made.append(1)
        return at(self, words, start)

    monkeypatch.setattr(module._Phrase, "at", counted)
    return made


@pytest.mark.parametrize("text", ["step ", "step by ", "review the ", "design a ", "deadlock", "step-", "step."])
async def test_work_grows_with_the_words_and_then_not_at_all(comparisons, text):
    """At most one comparison for each word and each phrase that starts with it; none past the part that is read."""
    phrases = max(map(len, DEFAULT._exact.values()))
    for size in (10, 20, 40, 80):
        comparisons.clear()
        await label_of(text * size)
        assert len(comparisons) <= size * phrases
    counts = []
    for size in (2_000, 200_000):
        comparisons.clear()
        await label_of(text * size)
        counts.append(len(comparisons))
    assert counts[0] == counts[1] <= 1_000 * phrases


async def test_wildcards_do_not_backtrack(comparisons):
    """A pattern that would hang an expression is one comparison a word."""
    classifier = KeywordClassifier(simple=[], complex=["a* a* a* a* a* b"])
    await label_of("a" * 30 + " " + "aa " * 300, classifier)
    assert len(comparisons) <= 331


async def test_text_without_a_phrases_first_word_is_not_compared_at_all(comparisons):
    """The usual sentence is over after one pass."""
    await label_of("Good morning to everybody in the room, and thanks for coming")
    assert comparisons == []


OWN = KeywordClassifier(simple=["order status"], complex=["chargeback*"])


@pytest.mark.parametrize(
    ("view", "label"),
    [
        (View("My order status, please"), "simple"),
        (View("A chargeback came in"), "complex"),
        (View("x", task="settle chargebacks"), "complex"),
        (View("Order status and a chargeback"), None),
        (View("Order status?", tools=3), None),
        (View("Prove that it halts"), None),
        (View("x", task="classify tickets"), None),
    ],
)
def test_only_phrases_of_the_apps_own_are_certain(view, label):
    """What Tierline itself takes for a sign is a guess."""
    opinion = OWN.certain(view)
    assert (opinion.label if opinion else None) == label
    assert DEFAULT.certain(view) is None


async def test_opinions_that_are_not_sure_enough_are_kept_back():
    """A cascade can be spared of what is said without being sure."""
    sure = KeywordClassifier(least=0.75)
    assert (await sure.classify(View("Prove it"), None)).label == "complex"
    assert await sure.classify(View("We had to prove it"), None) is None
    assert sure.fingerprint != DEFAULT.fingerprint
