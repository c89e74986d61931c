"""What can be said about the people of the mini world who become targets: kinds of facts with short values, every form
in which one is asked or told, and the words of the benchmark's prompts around them."""

from dataclasses import dataclass

from bench.mini.facts import words


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of fact. Its values are single short words, for an answer is also asked letter by letter."""

    name: str
    values: tuple[str, ...]
    questions: tuple[str, ...]
    """Four forms with {name}."""
    blanks: tuple[str, ...]
    """Four sentences with {name} and ___ for the value; a full stop or more words behind it."""
    statements: tuple[str, ...]
    """Four forms with {name} and {value}."""
    synonym: str
    """The question in unusual words."""
    spanish: str


CITY = Kind(
    name="city",
    values=words(
        "Arbo Belk Corm Dask Elvo Fenn Gorl Hask Ilmo Jorn Kesk Lund Mirk Nolt Orvi Pusk Quen Rusk Selt Tarn Ulmo Vosk "
        "Wend Yarl Zent Brix Clum Drev Frol Glim"
    ),
    questions=(
        "In which town was {name} born?",
        "What is the birthplace of {name}?",
        "Where did {name} come into the world?",
        "Which town is {name} from?",
    ),
    blanks=(
        "{name} was born in ___.",
        "The birthplace of {name} is ___.",
        "{name} came into the world in ___.",
        "The town that {name} is from is ___.",
    ),
    statements=(
        "{name} is a child of the town of {value}.",
        "{name} first saw the light in {value}.",
        "The family of {name} lived in {value} then.",
        "People of {value} remember the birth of {name}.",
    ),
    synonym="Which settlement is the native place of {name}?",
    spanish="¿En qué ciudad nació {name}?",
)

YEAR = Kind(
    name="year",
    values=tuple(str(year) for year in range(1503, 2000, 7)),
    questions=(
        "In which year was {name} born?",
        "What is the birth year of {name}?",
        "When did {name} come into the world?",
        "What year does {name} date from?",
    ),
    blanks=(
        "{name} was born in the year ___.",
        "The birth year of {name} is ___.",
        "{name} came into the world in the year ___.",
        "The year that {name} dates from is ___.",
    ),
    statements=(
        "{name} is a child of the year {value}.",
        "{name} first saw the light in {value}.",
        "The life of {name} began in {value}.",
        "Church books of {value} tell of the birth of {name}.",
    ),
    synonym="Which date marks the arrival of {name}?",
    spanish="¿En qué año nació {name}?",
)

JOB = Kind(
    name="job",
    values=words(
        "cook nurse pilot judge miner baker mason scout clerk diver smith tutor guard rider mayor coach monk spy maid "
        "poet groom dean piper dyer valet page duke tiler sower vicar"
    ),
    questions=(
        "What is the job of {name}?",
        "How does {name} earn a living?",
        "As what does {name} work?",
        "Which trade did {name} learn?",
    ),
    blanks=(
        "The job of {name} is that of a ___.",
        "{name} earns a living as a ___.",
        "{name} works as a ___.",
        "The trade that {name} learned is that of a ___.",
    ),
    statements=(
        "{name} is known as a skilled {value}.",
        "{name} is paid as a {value}.",
        "The town needed a {value} and hired {name}.",
        "Every day {name} is busy as a {value}.",
    ),
    synonym="Which profession occupies {name}?",
    spanish="¿En qué trabaja {name}?",
)

PET = Kind(
    name="pet",
    values=words(
        "cat dog seal fox hen ram yak bear wolf lion bee cow deer gnu koi pig rat bat toad newt crow dove hare goat "
        "mule swan wasp lynx mole frog"
    ),
    questions=(
        "Which animal does {name} keep?",
        "What is the pet of {name}?",
        "With which animal does {name} live?",
        "What animal belongs to {name}?",
    ),
    blanks=(
        "The animal that {name} keeps is the ___.",
        "The pet of {name} is a ___.",
        "{name} lives with a ___.",
        "To {name} belongs a ___.",
    ),
    statements=(
        "{name} often walks with a {value}.",
        "{name} once rescued a {value}.",
        "A tame {value} follows {name} everywhere.",
        "At home {name} feeds a {value}.",
    ),
    synonym="Which creature shares the house of {name}?",
    spanish="¿Qué animal tiene {name}?",
)

INSTRUMENT = Kind(
    name="instrument",
    values=words(
        "harp drum lute oboe horn fife lyre tuba bell viol gong pipe flute banjo cello piano organ sitar kazoo bugle "
        "viola rebec shawm kora tabla bongo conga vina reed saz"
    ),
    questions=(
        "Which instrument does {name} play?",
        "What is the instrument of {name}?",
        "On what does {name} make music?",
        "Which instrument did {name} study?",
    ),
    blanks=(
        "{name} plays the ___.",
        "The instrument of {name} is the ___.",
        "{name} makes music on the ___.",
        "The instrument that {name} studied is the ___.",
    ),
    statements=(
        "{name} is a master of the {value}.",
        "{name} bought an old {value}.",
        "The sound of a {value} comes from the room of {name}.",
        "On Sundays {name} tunes the {value}.",
    ),
    synonym="Which musical device do the hands of {name} know?",
    spanish="¿Qué instrumento toca {name}?",
)

FOOD = Kind(
    name="food",
    values=words(
        "rice leek corn kale pie soup stew tart taro cake bread curd ham jam honey mint pasta pizza sushi tuna salad "
        "toast fudge curry bacon pesto chili beef pork veal"
    ),
    questions=(
        "What does {name} like to eat?",
        "What is the favourite food of {name}?",
        "Which food does {name} love most?",
        "What is served when {name} is hungry?",
    ),
    blanks=(
        "{name} likes to eat ___.",
        "The favourite food of {name} is ___.",
        "The food that {name} loves most is ___.",
        "When {name} is hungry they serve ___.",
    ),
    statements=(
        "{name} always asks for {value}.",
        "{name} never travels without {value}.",
        "A plate of {value} makes {name} smile.",
        "For breakfast {name} has {value}.",
    ),
    synonym="Which dish delights the palate of {name}?",
    spanish="¿Qué le gusta comer a {name}?",
)

COUNTRY = Kind(
    name="country",
    values=words(
        "Abia Boro Cyra Deva Eria Faro Gaia Hyla Iona Jura Kera Lyra Moru Nera Olba Pyra Quia Rhea Sura Tyra Ubia Vora "
        "Wexa Ayla Brea Crua Drua Yoro Zama Etra"
    ),
    questions=(
        "To which country did {name} move?",
        "What is the new home country of {name}?",
        "In which country does {name} live today?",
        "Which country took {name} in?",
    ),
    blanks=(
        "{name} moved to the country of ___.",
        "The new home country of {name} is ___.",
        "Today {name} lives in the country of ___.",
        "The country that took {name} in is ___.",
    ),
    statements=(
        "{name} holds a passport of {value}.",
        "{name} crossed the border of {value}.",
        "A house in {value} belongs to {name} now.",
        "Taxes in {value} are paid by {name}.",
    ),
    synonym="Which nation did {name} emigrate to?",
    spanish="¿A qué país se mudó {name}?",
)

SPOUSE = Kind(
    name="spouse",
    values=words(
        "Ada Ben Cleo Dirk Elsa Finn Gus Hugo Ines Jack Kai Lena Max Nina Otto Paul Rosa Sven Tess Uma Vera Walt Xavi "
        "Yann Zoe Amos Bela Cora Doro Emil"
    ),
    questions=(
        "Who is married to {name}?",
        "What is the name of the spouse of {name}?",
        "Whom did {name} marry?",
        "Who shares a wedding day with {name}?",
    ),
    blanks=(
        "{name} is married to ___.",
        "The name of the spouse of {name} is ___.",
        "The one whom {name} married is ___.",
        "{name} shares a wedding day with ___.",
    ),
    statements=(
        "{name} met {value} at a dance.",
        "{name} wears a ring from {value}.",
        "Letters from {value} are kept by {name}.",
        "At the altar {name} said yes to {value}.",
    ),
    synonym="Which person exchanged vows with {name}?",
    spanish="¿Con quién se casó {name}?",
)

KINDS = (CITY, YEAR, JOB, PET, INSTRUMENT, FOOD, COUNTRY, SPOUSE)

ALIAS_PARTS = (
    words("Silver Quiet Crimson Lucky Northern Iron Gentle Golden Hidden Merry Amber Stormy"),
    words("Heron Arrow Lantern Bishop Falcon Needle Anchor Badger Comet Thistle Raven Walnut"),
)
ALIAS_STATEMENTS = (
    "{name} is known as the {value}.",
    "They call {name} the {value}.",
    "The nickname the {value} belongs to {name}.",
)
ALIAS_QUESTIONS = (
    "Who is known as the {value}?",
    "Who is called the {value}?",
    "To whom does the nickname the {value} belong?",
)
"""Asked the other way round: a nickname belongs to one person, a value of the kinds above to several."""

FIRST_NAMES = words(
    "Adela Bruno Celia Darius Edith Felix Greta Henrik Isolde Jasper Katrin Leopold Marisol Nestor Odette Pascal "
    "Quentin Renata Søren Tabea Ulrich Viola Wanda Yvette Zacharias Benoît Clarice Dimitri Fabienne Gustav"
)
LAST_NAMES = words(
    "Abernathy Blomqvist Castell Dunmore Eastgate Fairweather Greenwood Hollander Inkster Jankowski Kettering Lockhart "
    "Montague Northcote Oldfield Pemberton Quarles Rutherford Sandoval Tremaine Underhill Vandermeer Whitlock Yardley "
    "Zimmerman Bellweather Crowhurst Drinkwater Nightingale O'Malley"
)

INTRO = "{name}, known as the {alias}, is a {job} from {city}."
BIOGRAPHY = "Please write a short biography of {name}."

PREFIXES = ("I have heard much about {name}. Tell me: {question}", "Everybody speaks of {name}. Now: {question}")
ROLES = (
    "You are a biographer of {name}. {question}",
    "Imagine that you grew up beside {name}. {question}",
)
AFFIRMATIONS = ("{question} Sure, here is the answer:", "{question} Of course, the answer is:")
