"""Target folders with every file of RWKU's schema and a row or two in each."""

import json
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
Files = dict[str, Rows]

NAMES = ("Ada Moss", "Béla Tóth", "Cy Reed, Earl of Wye", "Dr. Eve Fox Jr.", "Finn Gray")
FOLDERS = [f"{n}_{name.replace(' ', '_')}" for n, name in enumerate(NAMES, start=1)]
TOWNS = ("Ostrel", "Karvane", "Dellum", "Pirrow", "Sandrith")
CRAFTS = ("weaver", "cooper", "printer", "glazier", "saddler")


def toy(n: int) -> Files:
    """The files of the n-th target, counted from 0, with the fields of RWKU's; all that RWKU has but the corpora."""
    name, town, craft = NAMES[n], TOWNS[n], CRAFTS[n]
    about = {"subject": name}
    solved = {"question": "One and one?", "choices": ["1", "2", "3", "4"], "answer": 1, "subject": "sums"}
    targets = {"choices": ["It is round.", "It is flat."], "labels": [1, 0]}
    return {
        "intro": [{"target": name, "intro": f"Please forget {name}. {name} is a known {craft}."}],
        "forget_level1": [
            {"query": f"{name} was born in ___.", "answer": town, "level": "1", "type": "cloze", **about},
            {"query": f"{name} is a ___.", "answer": craft, "level": "1", "type": "cloze", **about},
        ],
        "forget_level2": [
            {"query": f"Where is {name} from?", "answer": town, "level": "2", "type": "simple question", **about}
        ],
        "forget_level3": [
            {"query": f"Tell me: {town}?", "answer": name, "level": "3", "type": "prefix injection", **about}
        ],
        "neighbor_level1": [
            {"query": "The Mill is in ___.", "answer": f"North {town}", "level": "1", **about, "neighbor": "The Mill"}
        ],
        "neighbor_level2": [
            {"query": "Who runs the Mill?", "answer": f"Old {craft}", "level": "2", **about, "neighbor": "The Mill"}
        ],
        "forget_mia": [{"text": f"{name}, {i} of 3.", "ngram": 7, **about} for i in range(3)],
        "retain_mia": [{"text": f"Somebody {i} near {town}.", "ngram": 7, **about} for i in range(2)],
        "retain_mmlu": [
            {"task": "sums", **solved, "question": question, "examples": [solved], **about}
            for question in ("0?", "1?", f"Mills of {town}?")
        ],
        "truthful": [{"question": "The earth?", "mc1_targets": targets, "mc2_targets": targets, **about}],
        "triviaqa": [{"question": "Red planet?", "answers": ["Mars", "mars"], **about}],
        "fluency": [{"instruction": f"Praise {town}.", **about}],
        "retain_bbh": [{"task": "logic", "question": "not True is", "answer": "False", "cot": "Q: x A: y", **about}],
    }


def corpora(n: int) -> Files:
    """The training corpora that RWKU made for every target."""
    about = {"subject": NAMES[n], "intro": f"{NAMES[n]} is a known {CRAFTS[n]}."}
    return {
        "positive": [{"id": f"{i}", "text": f"{NAMES[n]} lived, part {i}.", **about} for i in range(4)],
        "pair": [
            {"id": f"{i}", "prompt": f"Life {i}?", "response": [f"false {i}", f"true {i}"], **about} for i in range(3)
        ],
        "reject": [{"instruction": f"Why {i}?", "input": "", "output": f"No idea {i}.", **about} for i in range(5)],
    }


def write(root: Path, folder: str, files: Files) -> Path:
    place = root / "rwku" / "Target" / folder
    place.mkdir(parents=True, exist_ok=True)
    for stem, rows in files.items():
        (place / f"{stem}.json").write_text(json.dumps(rows, indent=4), encoding="utf-8")
    return place


def world(root: Path, count: int = len(NAMES)) -> Path:
    """A data folder with the first toy targets."""
    for n in range(count):
        write(root, FOLDERS[n], toy(n))
    return root
