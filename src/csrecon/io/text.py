"""Text of others (names of files, arrays and models) as it may be shown to people."""

import re

# Control characters, marks that turn the direction of text, line separators, and the halves of
# characters that stand for the undecodable bytes of a file name.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""The text in one line, with `\x1b` and the like for characters that a terminal obeys."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
