"""Tables as LaTeX: `plain` for any article, `typeset` for the paper with siunitx, `layouts` what stands in them."""

from bench.latex.escape import breakable, escape_latex, slug
from bench.latex.plain import latex

__all__ = ["breakable", "escape_latex", "latex", "slug"]
