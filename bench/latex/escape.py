"""Any text as LaTeX that prints it, with no package loaded."""

import re
import unicodedata


def escape_latex(text: str) -> str:
    """Text that pdflatex prints as it is, with no package loaded; what it has no glyph for becomes <U+4E2D>."""
    pieces: list[str] = []
    previous = ""
    for char in unicodedata.normalize("NFC", text):
        if char == previous and char in "-',":
            pieces.append("{}")  # two in a row would become another sign
        pieces.append(_tex_char(char))
        previous = char
    return "".join(pieces)


def breakable(escaped: str) -> str:
    """Lets a long name break after its separators."""
    return re.sub(r"(/|,|=|\+|\\_|\{\[\})(?=.)", r"\1\\allowbreak{}", escaped)


def slug(text: str) -> str:
    """A label or a file name: lower case, digits and hyphens. A list, "1+3", is told from a range, "1-3"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("+", "-and-")).strip("-")


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedblright{}",
    "`": r"\textquoteleft{}",
    "[": "{[}",  # the end of a table row would take it for its option
    "*": "{*}",  # likewise
    "\u00df": r"\ss{}",
    "\u00e6": r"\ae{}",
    "\u00c6": r"\AE{}",
    "\u00f8": r"\o{}",
    "\u00d8": r"\O{}",
    "\u0153": r"\oe{}",
    "\u0152": r"\OE{}",
    "\u0142": r"\l{}",
    "\u0141": r"\L{}",
    "\u0131": r"\i{}",
    "\u00a1": r"\textexclamdown{}",
    "\u00bf": r"\textquestiondown{}",
    "\u00a3": r"\pounds{}",
    "\u00a7": r"\S{}",
    "\u00a9": r"\copyright{}",
    "\u2013": r"\textendash{}",
    "\u2014": r"\textemdash{}",
    "\u2018": r"\textquoteleft{}",
    "\u2019": r"\textquoteright{}",
    "\u201c": r"\textquotedblleft{}",
    "\u201d": r"\textquotedblright{}",
    "\u2022": r"\textbullet{}",
    "\u2026": r"\ldots{}",
    "\u00d7": r"\ensuremath{\times}",
    "\u00b1": r"\ensuremath{\pm}",
    "\u00b5": r"\ensuremath{\mu}",
    "\u00b7": r"\ensuremath{\cdot}",
    "\u2190": r"\ensuremath{\leftarrow}",
    "\u2191": r"\ensuremath{\uparrow}",
    "\u2192": r"\ensuremath{\rightarrow}",
    "\u2193": r"\ensuremath{\downarrow}",
    "\u2212": r"\ensuremath{-}",
    "\u221e": r"\ensuremath{\infty}",
    "\u2248": r"\ensuremath{\approx}",
    "\u2260": r"\ensuremath{\neq}",
    "\u2264": r"\ensuremath{\leq}",
    "\u2265": r"\ensuremath{\geq}",
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}


def _tex_char(char: str) -> str:
    if char in _TEX:
        return _TEX[char]
    if " " <= char <= "~":
        return char
    if unicodedata.category(char) in ("Zs", "Zl", "Zp", "Cc"):
        return " "
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return ""  # a mark without its letter, a direction sign
    if "\u03b1" <= char <= "\u03c9" and char not in "\u03bf\u03c2":  # alpha to omega, less omicron and final sigma
        name = unicodedata.name(char).split()[-1].lower()
        return rf"\ensuremath{{\{'lambda' if name == 'lamda' else name}}}"
    base, *marks = unicodedata.normalize("NFD", char)
    if marks and marks[0] in _ACCENTS and base.isascii() and base.isalpha():
        return rf"\{_ACCENTS[marks[0]]}{{{base}}}"
    plain = "".join(part for part in unicodedata.normalize("NFKD", char) if not unicodedata.combining(part))
    if plain.isascii():
        return "".join(map(_tex_char, plain))
    return rf"\textless{{}}U+{ord(char):04X}\textgreater{{}}"
