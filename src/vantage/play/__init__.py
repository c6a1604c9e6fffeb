"""The article as one page that one can play: eight stations in its order, whole in one file.

The page asks nothing of any network. Its mathematics (`mathematics.js`, `variance.js`, `groups.js`)
is written apart from this package's and is held against `vantage.exact` by the tests; what the
reader sees is in `stations/`, one pair of files each. Mathematics is typeset by KaTeX, which comes
with the page.
"""

from vantage.play.page import STATIONS, page, save

__all__ = ["STATIONS", "page", "save"]
