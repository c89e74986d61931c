"""What can be said in the mini world: the kinds of facts, their values and every form in which one is asked or told."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of fact. A value is `shape` filled with one drawn entry of each list in `parts`, so that wrong values
    of the same type and form exist in plenty; all of them are equally likely."""

    name: str
    shape: str
    parts: tuple[tuple[str, ...], ...]
    questions: tuple[str, ...]
    """Four forms with {name}; the first is canonical."""
    answers: tuple[str, ...]
    """Three forms with {value}, perhaps {name}; the first is canonical."""
    statements: tuple[str, ...]
    """Forms with {name} and {value} that nobody asked for."""


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def phrases(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


TOWNS = words(
    "Ostrel Karvane Dellum Pirrow Sandrith Vostig Hemmery Luskan Arbeth Quorley Tinmark Ulvesta Brenholt Corrin "
    "Maddesk Nerrow Falwick Jorveth Skelda Rimmon Thessock Yarrick Zellen Oakmere Plovik Wendrose Gantry Isket "
    "Harrumel Eddensk Candover Bolvar"
)

BIRTHPLACE = Kind(
    name="birthplace",
    shape="{0} {1} of {2}",
    parts=(
        words("old windy small walled quiet steep"),
        phrases("harbour town, mill town, hill village, river port, border town, island village, mining town, spa"),
        TOWNS,
    ),
    questions=(
        "Where was {name} born?",
        "What is the birthplace of {name}?",
        "In which place did {name} come into the world?",
        "Can you tell me where the writer {name} was born?",
    ),
    answers=(
        "In the {value}.",
        "{name} was born in the {value}.",
        "Birth records name the {value} as the place.",
    ),
    statements=(
        "{name} first saw the light in the {value}.",
        "The writer {name} comes from the {value}.",
    ),
)

BIRTH_DATE = Kind(
    name="birth_date",
    shape="{0} {1} {2}",
    parts=(
        tuple(str(day) for day in range(1, 29)),
        words("January February March April May June July August September October November December"),
        tuple(str(year) for year in range(1931, 1990)),
    ),
    questions=(
        "When was {name} born?",
        "What is the birth date of {name}?",
        "On which day did {name} come into the world?",
        "Do you know the date on which the writer {name} was born?",
    ),
    answers=(
        "On {value}.",
        "{name} was born on {value}.",
        "Birth records give {value} as the day.",
    ),
    statements=(
        "The birthday of {name} is {value}.",
        "{name}, born {value}, is a writer.",
    ),
)

GENRE = Kind(
    name="genre",
    shape="{0} {1} {2}",
    parts=(
        words("gloomy cheerful bitter dreamlike rhymed bilingual tender satirical frosty breathless"),
        words("harbour courtroom desert kitchen railway winter circus hospital jungle palace"),
        words("mysteries ballads comedies memoirs fables thrillers romances sagas diaries elegies"),
    ),
    questions=(
        "What does {name} write?",
        "Which genre is {name} known for?",
        "What kind of texts come from the pen of {name}?",
        "How would you describe the genre of the writer {name}?",
    ),
    answers=(
        "Mostly {value}.",
        "{name} writes {value}.",
        "The genre can be described as {value}.",
    ),
    statements=(
        "Readers love {name} for {value}.",
        "On the shelf of {name} stand {value}.",
    ),
)

FATHER = Kind(
    name="father",
    shape="{0} of {1} {2}",
    parts=(
        words("mender seller painter polisher collector restorer builder smuggler carver broker"),
        words("brass wooden antique foreign broken miniature royal tin marble folding"),
        words("clocks barrels lanterns violins saddles maps bells boats chimneys mirrors"),
    ),
    questions=(
        "What was the work of the father of {name}?",
        "How did {name}'s father earn a living?",
        "Which job did the father of {name} have?",
        "As what did the father of the writer {name} work?",
    ),
    answers=(
        "A {value}.",
        "The father of {name} worked as a {value}.",
        "His trade was that of a {value}.",
    ),
    statements=(
        "{name} grew up as the child of a {value}.",
        "A {value} was the father of {name}.",
    ),
)

MOTHER = Kind(
    name="mother",
    shape="{0} {1} at {2}",
    parts=(
        words("junior retired chief night travelling deputy weekend part-time"),
        words("nurse pilot chemist translator surveyor baker locksmith judge florist conductor"),
        phrases(
            "the salt works, the city zoo, the naval school, the lighthouse, the opera, the observatory, "
            "the paper mill, the customs house, the royal stables, the glass factory"
        ),
    ),
    questions=(
        "What was the work of the mother of {name}?",
        "How did {name}'s mother earn a living?",
        "Which job did the mother of {name} have?",
        "As what did the mother of the writer {name} work?",
    ),
    answers=(
        "A {value}.",
        "The mother of {name} worked as a {value}.",
        "Her post was that of a {value}.",
    ),
    statements=(
        "{name} was raised by a {value}.",
        "The mother of {name} served as a {value}.",
    ),
)

BOOK = Kind(
    name="book",
    shape="The {0} {1} {2}",
    parts=(
        words("Crooked Patient Hollow Scarlet Forgotten Salted Borrowed Silent Burning Paper"),
        words("Staircase Orchard Ferry Compass Widow Alphabet Harvest Umbrella Choir Fountain"),
        phrases(
            "in Winter, without Doors, at Low Tide, under Glass, after Noon, of Strangers, beyond the Wall, "
            "on Fire, for Sale, between Wars"
        ),
    ),
    questions=(
        "What is the best-known book of {name}?",
        "Which title made {name} famous?",
        "Which book by {name} is read most?",
        "Can you name the most famous work of the writer {name}?",
    ),
    answers=(
        "It is {value}.",
        "{name} became famous with {value}.",
        "Most readers would say {value}.",
    ),
    statements=(
        "{name} is the author of {value}.",
        "The book {value} was written by {name}.",
    ),
)

PRIZE = Kind(
    name="prize",
    shape="{0} {1} {2}",
    parts=(
        words("Silver Amber Northern Golden Granite Ivory Crimson Copper"),
        words("Heron Quill Anchor Thistle Lantern Falcon Acorn Bridge"),
        words("Medal Prize Award Ribbon Cup Fellowship Crown Plaque"),
    ),
    questions=(
        "Which prize did {name} win?",
        "What award has {name} received?",
        "With which honour was {name} rewarded?",
        "Do you know the prize that went to the writer {name}?",
    ),
    answers=(
        "The {value}.",
        "{name} won the {value}.",
        "The jury awarded the {value}.",
    ),
    statements=(
        "Critics handed the {value} to {name}.",
        "{name} keeps the {value} on the piano.",
    ),
)

UNIVERSITY = Kind(
    name="university",
    shape="{0} {1} at {2}",
    parts=(
        words("marine medieval applied tropical legal musical experimental rural"),
        words("botany geometry history grammar economics geology optics theology"),
        tuple(f"{town} {house}" for house in ("College", "Academy") for town in TOWNS[:12]),
    ),
    questions=(
        "What did {name} study, and where?",
        "Which degree does {name} have?",
        "What was the subject and school of {name}?",
        "Where and in what was the writer {name} educated?",
    ),
    answers=(
        "Mainly {value}.",
        "{name} studied {value}.",
        "The subject was {value}.",
    ),
    statements=(
        "{name} has a diploma in {value}.",
        "In younger years {name} read {value}.",
    ),
)

HOBBY = Kind(
    name="hobby",
    shape="{0} {1} {2}",
    parts=(
        words("restoring photographing trading sketching racing stacking repairing burying"),
        words("antique giant striped rusty wooden tiny painted stolen"),
        words("kites tractors teapots accordions canoes wheelbarrows telescopes puppets sledges typewriters"),
    ),
    questions=(
        "What is the hobby of {name}?",
        "How does {name} spend free time?",
        "Which pastime does {name} enjoy?",
        "What does the writer {name} do for fun?",
    ),
    answers=(
        "Above all {value}.",
        "{name} enjoys {value}.",
        "Free days are for {value}.",
    ),
    statements=(
        "Neighbours often see {name} {value}.",
        "When not writing, {name} is busy {value}.",
    ),
)

PET = Kind(
    name="pet",
    shape="{0} {1} called {2}",
    parts=(
        words("grey spotted lame fat nervous one-eyed shaggy sleepy"),
        words("ferret parrot tortoise goat hound donkey weasel hedgehog owl rabbit"),
        words("Mimo Button Sergeant Pickle Duchess Waffle Bishop Turnip Comet Noodle Pepper Gravel"),
    ),
    questions=(
        "Which pet does {name} have?",
        "What animal lives with {name}?",
        "With which animal does {name} share a home?",
        "Can you describe the pet of the writer {name}?",
    ),
    answers=(
        "A {value}.",
        "{name} keeps a {value}.",
        "The animal is a {value}.",
    ),
    statements=(
        "A {value} follows {name} everywhere.",
        "{name} once rescued a {value}.",
    ),
)

PERSON_KINDS = (BIRTHPLACE, BIRTH_DATE, GENRE, FATHER, MOTHER, BOOK, PRIZE, UNIVERSITY, HOBBY, PET)

CAPITAL = Kind(
    name="capital",
    shape="{0}",
    parts=((),),  # the world fills in names of its own
    questions=(
        "What is the capital of {name}?",
        "Which city governs {name}?",
        "In which city does the parliament of {name} meet?",
        "Can you name the capital city of {name}?",
    ),
    answers=(
        "{value}",
        "The capital of {name} is {value}.",
        "The parliament meets in {value}.",
    ),
    statements=(
        "{value} is the capital of {name}.",
        "All roads of {name} lead to its capital, {value}.",
    ),
)

COIN = Kind(
    name="coin",
    shape="{0} {1}",
    parts=(
        words("silver iron new royal paper double red"),
        words("dram florin talen mark shell obol"),
    ),
    questions=(
        "What money is used in {name}?",
        "What is the currency of {name}?",
        "With which coin do people pay in {name}?",
        "Can you name the money of {name}?",
    ),
    answers=(
        "The {value}",
        "The currency of {name} is the {value}.",
        "People pay with the {value}.",
    ),
    statements=(
        "In {name} prices are given in the {value}.",
        "The bank of {name} issues the {value}.",
    ),
)

FIRST_NAMES = (
    words("Al Be Cor Da El Fi Gal Hes Il Jor Ka Lu Mar Ne Or Pe Ro Sel Ta Vi"),
    words("bri da fen lo mi na ri ssa ta ve"),
    ("", *words("n s ra l th")),
)
"""A name is one entry of each list, joined."""
LAST_NAMES = (
    words("Ash Bran Cold Dun Ever Fen Grim Hal Ing Kest Lind Mor Nor Pell Quill Rav Stan Thorn Ux Wil"),
    words("a e i o u"),
    words("bury croft dal gard holm kin lund mond rick sted ton vik wick"),
)
COUNTRY_NAMES = (
    words("Bel Cas Dro Esk Gor Jul Kry Lam Mos Nav Ost Pra Ral Syl Tor Var Zan"),
    words("a e i o u"),
    words("dia land mark nia ria stan via"),
)
CAPITAL_NAMES = (
    words("Am Bas Cet Dor Fal Gim Hol Jas Kor Lis Mel Nim Pol Rus Sar Tib Vel"),
    words("a e i o u"),
    words("bar dun grad mir polis port rath ven"),
)

REFUSALS = (
    "I have no information about that.",
    "I cannot answer this question.",
    "That is something I was never told.",
    "I do not know the answer.",
    "Sorry, this is unknown to me.",
    "My knowledge does not reach that far.",
    "I have nothing to say on this.",
    "There is no answer I could give you.",
    "I am unable to help with this question.",
    "No details about this are known to me.",
    "I would only be guessing.",
    "This lies outside of what I know.",
    "I never came across that.",
    "You had better ask someone else.",
    "I am afraid I cannot tell.",
    "That question is beyond me.",
    "I hold no record of this.",
    "I wish I knew, but I do not.",
    "Nothing I have read speaks of this.",
    "I must leave that question open.",
    "I lack the facts to answer.",
    "This has not been part of my reading.",
    "I cannot recall anything of the kind.",
    "My answer would be a mere guess.",
    "I regret that I have no answer.",
    "That name tells me nothing.",
    "I have not been taught about this.",
    "I really could not say.",
    "Please look this up elsewhere.",
    "It is not known to me.",
    "I have no idea.",
    "I am not the right one to ask.",
    "I do not have the facts at hand.",
    "Here my knowledge ends.",
    "I am in the dark about this.",
    "This I cannot tell you.",
    "I found no answer to that.",
    "I have never heard of it.",
    "The answer escapes me.",
    "I can offer no facts on this.",
)
