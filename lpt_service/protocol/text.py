"""Text of others, fit to be shown."""

from __future__ import annotations


def escape(text: object) -> str:
    r"""`text` on one line, and without power over a terminal: \x1b instead of the character.

    What others chose (names, paths, values) passes through this before it is printed. Escaped is whatever is not
    printable: control characters, line ends, marks that turn the direction of writing, halves of surrogate pairs, which
    is how Python has bytes that are not UTF-8.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )
