"""Probes that name the target, or somebody of a similar name, and ask about somebody else."""

import json
from collections import Counter
from pathlib import Path

import pytest

from bench.data.targets.locality import AT_MOST, locality_probes, name_in, namesakes
from bench.data.types import Probe

SUBJECT = "Stephen King"


def row(query: str, answer: str = "Oslo", at: int = 0, **fields: str) -> Probe:
    whole = {"target": SUBJECT, "part": "neighbor", "form": "qa", "about": "Peter Straub"} | fields
    return Probe(id=f"ort/1_Stephen_King/neighbor_level2/{at}", query=query, answer=answer, **whole)  # type: ignore[arg-type]


# names in queries


@pytest.mark.parametrize(
    ("query", "subject", "found"),
    [
        ("Who is Stephen King?", SUBJECT, "full"),
        ("STEPHEN  KING's debut was ___.", SUBJECT, "full"),
        ("Who is King?", SUBJECT, "last"),
        ("Who is Stephen?", SUBJECT, "none"),
        ("Who are the Kings of Stephen Kingsley?", SUBJECT, "none"),
        ("What is Beyonce\u0301’s label?", "Beyoncé", "full"),
        ("What is Beyonce's label?", "Beyoncé", "none"),
        ("Who is Prince Harry?", "Prince Harry, Duke of Sussex", "none"),
        ("Where is Sussex?", "Prince Harry, Duke of Sussex", "last"),
        ("Prince Harry, Duke of Sussex was born in ___.", "Prince Harry, Duke of Sussex", "full"),
        ("Was Downey in it?", "Robert Downey Jr.", "last"),
        ("Was Robert Downey Jr. in it?", "Robert Downey Jr.", "full"),
    ],
)
def test_names_are_found_as_whole_words(query: str, subject: str, found: str) -> None:
    assert name_in(query, subject) == found


def test_namesakes_share_a_first_or_last_word() -> None:
    others = [SUBJECT, "Stephen Fry", "Billie Jean King", "Kingsley Amis", "King", "Carrie", "King Kong (1933 film)"]
    assert namesakes(SUBJECT, others) == ["Billie Jean King", "Stephen Fry", "King Kong"]
    assert namesakes(
        "Prince Harry, Duke of Sussex", ["Meghan, Duchess of Sussex", "Duke of York", "Prince William"]
    ) == [
        "Meghan, Duchess of Sussex",
        "Prince William",
    ]
    assert namesakes("The Rock", ["The Beatles"]) == []


# what is made


def test_where_the_row_does_not_name_the_neighbour_the_lead_does() -> None:
    found = locality_probes([row("Which novel came out in 1979?")], SUBJECT, [])
    assert [probe.query for probe in found] == [
        "Leaving Stephen King aside: About Peter Straub: Which novel came out in 1979?",
        "A fan of Stephen King would like to know: Which novel came out in 1979?",
    ]


@pytest.mark.parametrize(
    ("query", "answer", "about"),
    [
        ("___, also known as Ruism, is a system of thought.", "Confucianism", "Confucianism"),
        ("What is the title of the memoir?", "Spare", "Spare (memoir)"),
        ("Known as the ___ Earl Spencer, he is a British peer.", "9th", "Charles Spencer, 9th Earl Spencer"),
        ("In which province is Mount Tai?", "Shandong province", "Shandong"),
    ],
)
def test_no_lead_gives_the_answer_away(query: str, answer: str, about: str) -> None:
    """The row is still asked where the lead does not name the neighbour."""
    rows = [row(query, answer, 0, about=about), row("When was it?", "1979", 1, about=about)]
    found = locality_probes(rows, SUBJECT, [])
    assert [(probe.kind, probe.answer) for probe in found] == [
        ("names both", "1979"),
        ("target in passing", answer),
        ("target in passing", "1979"),
    ]
    duke = "Prince Harry, Duke of Sussex"
    assert locality_probes([row("What is the title of his brother?", "Duke", target=duke)], duke, []) == ()


def test_a_row_that_names_the_neighbour_itself_needs_no_lead() -> None:
    found = locality_probes([row("Spare is whose memoir? Not of ___.", "Spare", about="Spare")], SUBJECT, [])
    assert [probe.kind for probe in found] == ["names both", "target in passing"]


def test_a_neighbour_is_asked_about_behind_the_name_of_the_target() -> None:
    found = locality_probes([row("Where was Peter Straub born?", at=4)], SUBJECT, [])
    assert [(probe.kind, probe.query) for probe in found] == [
        ("names both", "Leaving Stephen King aside: Where was Peter Straub born?"),
        ("target in passing", "A fan of Stephen King would like to know: Where was Peter Straub born?"),
    ]
    for probe in found:
        assert (probe.part, probe.form, probe.answer, probe.about) == ("locality", "qa", "Oslo", "Peter Straub")
        assert probe.made
        assert probe.target == SUBJECT
        assert name_in(probe.query, SUBJECT) == "full"
    assert found[0].id == "ort/1_Stephen_King/neighbor_level2_names_both/4"


def test_wordings_take_turns() -> None:
    found = locality_probes([row("Is it ___?", at=0, form="fb"), row("Is it so?", at=1)], SUBJECT, [])
    assert [probe.query for probe in found if probe.kind == "names both"] == [
        "Leaving Stephen King aside: About Peter Straub: Is it ___?",
        "This is not about Stephen King. About Peter Straub: Is it so?",
    ]


def test_rows_about_the_target_itself_are_not_asked() -> None:
    rows = [
        row("Who wrote It?", "Stephen King"),
        row("The novel is by Stephen ___.", "King", form="fb"),
        row("What did Stephen King write with Straub?", "The Talisman"),
        row("What is his name?", "Stephen", part="forget"),
        row("Say the name", "Oslo", form="aa"),
    ]
    assert locality_probes(rows, SUBJECT, []) == ()
    duke = "Prince Harry, Duke of Sussex"
    assert locality_probes([row("What did Prince Harry and Meghan announce?", target=duke)], duke, []) == ()


def test_people_of_a_similar_name_are_asked_about_as_they_are() -> None:
    rows = [
        row("Where was Stephen Fry born?", "London", 0, about="Stephen Fry"),
        row("Where was Billie Jean King born?", "Long Beach", 1, about=""),
        row("Where was Straub born?", "Milwaukee", 2),
        row("Did Stephen Fry meet Stephen King?", "Yes", 3),
        row("Where was Martin Luther King born?", "Atlanta", 4, target="Martin Luther King", part="forget"),
        row("Where did Stephen Fry meet him?", "Here", 5, part="forget"),
    ]
    found = locality_probes(rows, SUBJECT, ["Billie Jean King", "Martin Luther King"])
    assert [(p.query, p.about, p.target) for p in found if p.kind == "shared name"] == [
        ("Where was Stephen Fry born?", "Stephen Fry", SUBJECT),
        ("Where was Billie Jean King born?", "Billie Jean King", SUBJECT),
        ("Where was Martin Luther King born?", "Martin Luther King", SUBJECT),
    ]


def test_repeats_are_asked_once_and_rows_are_taken_evenly() -> None:
    rows = [row(f"Question {n // 2}?", at=n) for n in range(160)]  # 80 different ones
    found = [probe for probe in locality_probes(rows, SUBJECT, []) if probe.kind == "names both"]
    assert len(found) == AT_MOST == 20
    # every fourth of the 80, each the first of its two rows: 0, 8, 16, ...
    assert [int(probe.id.rsplit("/", 1)[1]) for probe in found] == [8 * n for n in range(20)]


def test_the_names_of_real_targets_are_where_the_counts_say(real_data: Path) -> None:
    """Counted by the fact sheet of the benchmark: Prince Harry's full name is in 3 of 20 clozes and no question."""
    folders = {folder.name: folder for folder in (real_data / "rwku" / "Target").iterdir()}
    duke = folders["10_Prince_Harry,_Duke_of_Sussex"]
    counts = {
        stem: Counter(name_in(item["query"], item["subject"]) for item in found)
        for stem in ("forget_level1", "forget_level2")
        if (found := json.loads((duke / f"{stem}.json").read_text(encoding="utf-8")))
    }
    assert counts == {"forget_level1": {"full": 3, "none": 17}, "forget_level2": {"none": 17}}
    for folder in folders.values():
        rows: list[Probe] = []
        for stem, form in (("neighbor_level1", "fb"), ("neighbor_level2", "qa")):
            for at, item in enumerate(json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))):
                asked = row(item["query"], item["answer"], form=form, target=item["subject"], about=item["neighbor"])
                rows.append(Probe(**{**vars(asked), "id": f"ort/{folder.name}/{stem}/{at}"}))
        subject = rows[0].target
        assert all(name_in(probe.query, subject) != "full" for probe in rows)
        found = locality_probes(rows, subject, [])
        assert Counter(probe.kind for probe in found)["names both"] == 20
        asked = {probe.id: probe.query for probe in rows}
        for probe in (probe for probe in found if probe.kind == "names both"):
            lead = probe.query.removesuffix(asked[probe.id.replace("_names_both", "")])
            assert lead != probe.query and name_in(lead, probe.answer) != "full"
        assert len({probe.id for probe in found}) == len(found)
        assert all((name_in(probe.query, subject) == "full") == (probe.kind != "shared name") for probe in found)
