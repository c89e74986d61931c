"""The same fact in several forms, from rows that hold a question, its answer and wrong answers (TOFU's judged sets).

A row with wrong answers gives up to four probes, whose ids are the row's with "/qa", "/paraphrase", "/fb" or "/mcp"
behind it:

* "qa": the question with the answer as they stand; once more, with kind "paraphrase", the reworded question.
* "mcp": the question with the right answer, worded as the wrong ones are, among three of the wrong ones.
* "fb": the sentence of the right answer that the wrong answers contradict, behind the question, with a blank for what
  they say differently. Many of TOFU's answers are free prose that shares no frame with its wrong answers; such a row
  has no cloze, and `remark` counts the rows.

Letter by letter needs no rows of its own: evaluators ask for the answers of "qa" and "fb" rows in that way.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from bench.data.choice_items import BLANK, deal_letters, draw, plain, within
from bench.data.forms import LETTERS, list_options
from bench.data.types import QA, Benchmark, Part, Probe

PARTS: tuple[tuple[str, Part], ...] = (("forget", "forget"), ("retain", "neighbor"))
"""Judged sets, and what their probes are for."""

LONGEST = 9
"""Words in a blank; RWKU's longest cloze answer has as many."""

FRAMES = 3
"""Wrong answers that must share the frame of the right one, of TOFU's five."""

FRAME = 0.5
"""The share of the right answer's words that a wrong answer must repeat to share its frame; a blank, too, takes no
more of its sentence."""

LITTLE = frozenset([
    "a", "an", "the", "and", "or", "but", "of", "in", "on", "at", "to", "by", "for", "from", "with", "as", "into",
    "about", "between", "his", "her", "its", "their", "he", "she", "it", "they", "who", "whose", "which", "that",
    "this", "these", "those", "is", "are", "was", "were", "be", "been", "being", "has", "have", "had", "very",
    "more", "most", "also",
])  # fmt: skip
"""Words that carry no answer by themselves: never a blank, and never at the edge of one."""

MARKS = "\"'“”‘’.,;:!?()[]"
"""What stands around a word and is none of it."""

OPENING, CLOSING = "'\"“‘", "'\"”’"


def forms_of(benchmark: Benchmark, *, seed: int = 0) -> tuple[Probe, ...]:
    """Probes of every form from the rows that judge forgetting and retaining, set by set, form by form."""
    found: list[Probe] = []
    for label, part in PARTS:
        usable = [qa for qa in benchmark.eval_sets.get(label, ()) if qa.perturbed_answers]
        found += [_probe(qa, benchmark, part, "qa") for qa in usable]
        found += [_probe(qa, benchmark, part, "paraphrase") for qa in usable if qa.paraphrased_question]
        found += [_fill(qa, benchmark, part, cut) for qa in usable if (cut := cloze(qa))]
        found += _choose(usable, benchmark, part, seed)
    return tuple(found)


def remark(benchmark: Benchmark) -> str:
    """How many rows gave which form, for the record."""
    probes = forms_of(benchmark)
    counts = Counter((probe.part, probe.kind if probe.form == "qa" and probe.kind else probe.form) for probe in probes)
    lines = []
    for label, part in PARTS:
        rows = benchmark.eval_sets.get(label, ())
        without = sum(not qa.perturbed_answers for qa in rows)
        lines.append(
            f"{len(rows)} {label} rows gave {counts[part, 'qa']} questions, {counts[part, 'paraphrase']} rewordings, "
            f"{counts[part, 'fb']} clozes, {counts[part, 'mcp']} four-way choices"
            + (f" ({without} without wrong answers gave none)" if without else "")
        )
    return "forms made from rows: " + "; ".join(lines)


def _probe(qa: QA, benchmark: Benchmark, part: Part, kind: str) -> Probe:
    """The question, or its rewording; both have the answer that was learnt."""
    reworded = qa.paraphrased_question if kind == "paraphrase" else None
    return Probe(
        id=f"{qa.id}/{kind}",
        target=benchmark.name,
        part=part,
        form="qa",
        query=reworded or qa.question,
        answer=qa.answer,
        kind=kind if reworded else "",
        made=bool(reworded),
    )


def _fill(qa: QA, benchmark: Benchmark, part: Part, cut: tuple[str, str]) -> Probe:
    """The cloze behind the question, without which a sentence out of an answer seldom says what it is about."""
    sentence, answer = cut
    return Probe(
        id=f"{qa.id}/fb",
        target=benchmark.name,
        part=part,
        form="fb",
        query=f"{qa.question} {sentence}",
        answer=answer,
        made=True,
    )


def _choose(rows: Sequence[QA], benchmark: Benchmark, part: Part, seed: int) -> list[Probe]:
    """Four-way choices, the letters dealt over all rows; rows with too few different wrong answers have none."""
    offered = {qa.id: wrong for qa in rows if len(wrong := _wrong(qa, seed)) == len(LETTERS) - 1}
    rows = [qa for qa in rows if qa.id in offered]
    found = []
    for qa, letter in zip(rows, deal_letters([(qa.question, qa.answer) for qa in rows], seed), strict=True):
        at = LETTERS.index(letter)
        choices = (*offered[qa.id][:at], _line(_right(qa)), *offered[qa.id][at:])
        found.append(
            Probe(
                id=f"{qa.id}/mcp",
                target=benchmark.name,
                part=part,
                form="mcp",
                query=list_options(qa.question, choices),
                answer=letter,
                kind="multiple choice",
                choices=choices,
                made=True,
            )
        )
    return found


def _wrong(qa: QA, seed: int) -> tuple[str, ...]:
    """Three wrong answers by lot."""
    return tuple(sorted(_different(qa), key=lambda wrong: draw(seed, qa.question, wrong))[: len(LETTERS) - 1])


def _different(qa: QA) -> list[str]:
    """The wrong answers, none of which is the right one or another in other letters."""
    right = {plain(_right(qa)), plain(qa.answer)}
    wrong: dict[tuple[str, ...], str] = {}
    for text in qa.perturbed_answers:
        if plain(text) not in right:
            wrong.setdefault(plain(text), _line(text))
    return list(wrong.values())


def _right(qa: QA) -> str:
    """The right answer in the words that the wrong ones vary."""
    return qa.paraphrased_answer or qa.answer


def _line(text: str) -> str:
    return " ".join(text.split())


# cloze


def cloze(qa: QA) -> tuple[str, str] | None:
    """The sentence of the right answer with a blank, and what fills it; None where no blank is worth asking.

    The right answer is compared word by word with the wrong ones. A blank is a run of words that most wrong answers
    change and at least one word of which all change; of several the one with a figure or a capital letter in it, then
    the longest, then the last.
    """
    right = _right(qa).split()
    same = [_repeated(right, wrong.split()) for wrong in _different(qa)]
    same = [words for words in same if sum(words) >= FRAME * len(right)]
    if len(same) < FRAMES:
        return None
    changed = [sum(not words[at] for words in same) for at in range(len(right))]
    asked = plain(qa.question)
    best: tuple[tuple[bool, int, int], tuple[str, str]] | None = None
    for first, last in _sentences(right):
        for start, end in _runs(right, [count > len(same) / 2 for count in changed], first, last):
            start, end = _trim(right, start, end, first)
            if end == start or len(same) not in changed[start:end]:
                continue
            words = " ".join(right[start:end])
            answer = words.strip(MARKS)
            rest = (*plain(" ".join(right[first:start])), "", *plain(" ".join(right[end:last])))
            if (
                end - start > min(LONGEST, FRAME * (last - first))
                or not any(map(str.isalnum, answer))
                or answer.count("(") != answer.count(")")
                or within(plain(answer), asked)
                or within(plain(answer), rest)
            ):
                continue
            at = words.index(answer)
            blanked = f"{words[:at]}{BLANK}{words[at + len(answer) :]}"
            rank = any(_concrete(right, at, first) for at in range(start, end)), end - start, start
            if best is None or rank > best[0]:
                best = rank, (" ".join([*right[first:start], blanked, *right[end:last]]), answer)
    return None if best is None else best[1]


def _repeated(right: Sequence[str], wrong: Sequence[str]) -> list[bool]:
    """Of every word of the right answer, whether the wrong one has it too, in the same order."""
    same = [False] * len(right)
    one, two = [[word.strip(MARKS).casefold() for word in words] for words in (right, wrong)]
    for at, _, size in difflib.SequenceMatcher(a=one, b=two, autojunk=False).get_matching_blocks():
        same[at : at + size] = [True] * size
    return same


def _sentences(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where the sentences begin and end; a capital letter or "Dr" in front of a full stop ends none."""
    start = 0
    for at, word in enumerate(words, start=1):
        stop = word.rstrip("\"'”’)").endswith((".", "!", "?")) and not re.fullmatch(
            r"\W*(?:\w|Mr|Mrs|Ms|Dr|St|Jr|Sr)\.", word
        )
        if stop or at == len(words):
            yield start, at
            start = at


def _runs(words: Sequence[str], changed: Sequence[bool], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Where words in a row are changed; a quotation begins a run and ends one, so that a title is a run of its own."""
    start = first
    for at in range(first, last + 1):
        here = at < last and changed[at]
        quoted = here and at > start and (words[at][0] in OPENING or words[at - 1].rstrip(",.;:!?)")[-1:] in CLOSING)
        if not here or quoted:
            if at > start:
                yield start, at
            start = at if here else at + 1


def _trim(words: Sequence[str], start: int, end: int, first: int) -> tuple[int, int]:
    """The run without little words at its edges, and without what leads up to a name or a figure."""
    if any(_concrete(words, at, first) for at in range(start, end)):
        while not _concrete(words, start):
            start += 1
    while start < end and words[start].strip(MARKS).casefold() in LITTLE:
        start += 1
    while start < end and words[end - 1].strip(MARKS).casefold() in LITTLE:
        end -= 1
    return start, end


def _concrete(words: Sequence[str], at: int, first: int = -1) -> bool:
    """Whether a word is a figure or has a capital letter, which at the beginning of its sentence says nothing."""
    bare = words[at].strip(MARKS)
    return any(map(str.isdigit, bare)) or (bare[:1].isupper() and at != first)
