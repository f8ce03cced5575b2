"""Texts of strangers, of a bounded size; YAML: plain values only, read without running anything.

YAML can refer to itself (&a [*a]), double itself with every line (the billion laughs), and hold
numbers of any length. The node graph is measured before anything is made of it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydantic
import yaml

from csrecon.errors import InputError
from csrecon.io import files

LARGEST = 2**19
"""Characters of a document."""
_MOST_NODES = 10**5
_LONGEST_NUMBER = 40  # characters
_KINDS = ("null", "bool", "int", "float", "str", "seq", "map", "merge")
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in _KINDS}
# What the constructors of YAML's types raise on texts that do not fit them.
_MISFITS = (ValueError, ArithmeticError, LookupError)


class DocumentError(ValueError):
    """A text that is no plain YAML."""


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(map(str, keys))):
            raise yaml.constructor.ConstructorError(
                None, None, f"a key is given twice among {keys}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def content(path: Path, most: int) -> bytes:
    """The bytes of a regular file, `most` of them at most.

    Raises:
        InputError: no such file, a device, a file that cannot be read, or a larger one.
    """
    files.require_regular(path)
    with files.reading(path):
        if path.stat().st_size > most:
            raise InputError(f"{path}: larger than {most} bytes, so it is not what it should be.")
        return path.read_bytes()


def plain(text: str) -> Any:
    """The value of a YAML text: null, booleans, numbers, texts, and lists and mappings of them.

    Raises:
        DocumentError: not YAML, another type such as a date, a key given twice, a value that
            contains itself, or more than a hundred thousand values.
    """
    if len(text) > LARGEST:
        raise DocumentError(f"{len(text)} characters; expected at most {LARGEST}")
    try:
        node = yaml.compose(text, _UniqueKeys)
        if node is None:
            return None
        _measure(node, {})
        loader = _UniqueKeys("")
        return loader.construct_document(node)
    except DocumentError:
        raise
    except RecursionError as error:
        raise DocumentError("nested too deeply") from error
    except yaml.YAMLError as error:
        raise DocumentError(" ".join(str(error).split())) from error
    except _MISFITS as error:
        raise DocumentError(f"a value that does not fit its type ({error})") from error


def _measure(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values that a node stands for, its references expanded."""
    if id(node) in known:
        if not known[id(node)]:
            raise DocumentError("a value contains itself")
        return known[id(node)]
    if node.tag not in _TAGS:
        raise DocumentError(
            f"line {node.start_mark.line + 1}: a value of type {node.tag.rpartition(':')[2]!r}; "
            "write it as a text in quotes"
        )
    number = node.tag.endswith((":int", ":float"))
    if number and len(str(node.value)) > _LONGEST_NUMBER:
        raise DocumentError(f"line {node.start_mark.line + 1}: a number that is too long")
    known[id(node)] = 0
    count = 1
    for child in _children(node):
        count += _measure(child, known)
        if count > _MOST_NODES:
            raise DocumentError(f"more than {_MOST_NODES} values, its references expanded")
    known[id(node)] = count
    return count


def _children(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def faults(error: pydantic.ValidationError) -> str:
    """What is wrong with some fields, briefly: each by its name, with its value."""
    found = error.errors(include_url=False, include_context=False)
    texts = [
        f"{'.'.join(map(str, e['loc'])) or 'all of it'} = {short(e['input'])}: {e['msg']}"
        for e in found[:20]
    ]
    more = [f"and {len(found) - 20} more"] if len(found) > 20 else []
    return "; ".join([*texts, *more])


def short(value: object) -> str:
    """The beginning of a value's text, made of no more of the value than that."""
    if isinstance(value, dict | list | tuple | set) and value:
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 128:
        return "a huge number"
    text = repr(value[:100] if isinstance(value, str | bytes) else value)
    return text[:100]
