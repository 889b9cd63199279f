"""Characters that documents and chats put in place of the typed ones."""

from __future__ import annotations

from collections.abc import Iterable

MINUS = "\u2212"
"""The typographic minus sign, which some languages' number formats have."""
QUOTES = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb\u2039\u203a\u2032\u2033\u00b4"
DASHES = f"\u2010\u2011\u2012\u2013\u2014\u2015{MINUS}\ufe58\ufe63\uff0d"
SPACES = "\u00a0\u2007\u202f\u2009\u3000"
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
KINDS = (
    (QUOTES, "a typographic quote", "type ' or \""),
    (DASHES, "a typographic dash", "type -"),
    (SPACES, "a non-breaking or wide space", "type a space"),
    (INVISIBLE, "an invisible character", "delete it"),
)
"""Characters, how a message names one, and the fix."""


def pasted(text: str, accepted: Iterable[str] = ()) -> str:
    """Return what a message says about the first typographic character of a text; empty if there is none.

    Characters in the `accepted` texts, such as valid names, are not reported.
    """
    valid = {*"".join(accepted)}
    for character in text:
        for characters, kind, fix in KINDS:
            if character in characters and character not in valid:
                shown = "" if character in SPACES + INVISIBLE else f" {character}"
                return f"{kind}{shown} (U+{ord(character):04X}), as pasted from a document; {fix}"
    return ""
