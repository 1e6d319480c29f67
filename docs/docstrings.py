"""Makes the sections of this project's docstrings known to mkdocstrings, which wants a blank line before each of them."""

import re
from typing import Any

import griffe

_SECTION = re.compile(r"(?<=\S)\n(?=(?:Args|Attributes|Returns|Yields|Raises|Source|Examples):)")
_NAMES = re.compile(r"^( {4}\w+(?:, \w+)+)(?=: )", re.M)


def with_sections(text: str) -> str:
    """The docstring with its sections apart; of several names that share a line, none is taken for a type."""
    return _NAMES.sub(lambda names: names[1].replace(", ", ",\N{NO-BREAK SPACE}"), _SECTION.sub("\n\n", text))


class Sections(griffe.Extension):
    """Changes every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called once for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = with_sections(obj.docstring.value)
