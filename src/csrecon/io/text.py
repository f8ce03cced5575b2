"""Text of others (names of files, arrays and models) as it may be shown to people and programs."""

import json
import math
import re
from typing import Any

# Control characters, marks that turn the direction of text, line separators, and the halves of
# characters that stand for the undecodable bytes of a file name.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""The text in one line, with `\x1b` and the like for characters that a terminal obeys."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def _with_null(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _with_null(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_with_null(value) for value in content]
    unknown = isinstance(content, float) and not math.isfinite(content)
    return None if unknown else content


def json_text(content: Any) -> str:
    """Indented JSON, with null for infinite and NaN values, which JSON cannot hold."""
    return json.dumps(_with_null(content), indent=2, allow_nan=False) + "\n"
