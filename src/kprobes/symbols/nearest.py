"""Names that come close to a misspelt one. Only ever called on the way to an error."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# So many candidates are compared in earnest; one comparison costs some 10 µs.
COMPARED = 4000


def nearest_names(name: str, names: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """Return up to *count* of *names* that resemble *name*, best first.

    A candidate must be about as long and share three letters in a row, which is cheap to ask of 200,000 names.
    """
    import difflib

    wanted = name.lower()
    slack = max(2, len(wanted) // 4)
    shortest, longest = len(wanted) - slack, len(wanted) + max(slack, 6)
    alike = {n for n in names if shortest <= len(n) <= longest and n != name}
    grams = {wanted[i : i + 3] for i in range(len(wanted) - 2)}
    if grams and len(alike) > COMPARED // 8:
        scored = ((sum(gram in n.lower() for gram in grams), n) for n in alike)
        best = sorted((s for s in scored if s[0]), reverse=True)[:COMPARED]
        alike = {n for _, n in best}
    folded: dict[str, str] = {}
    for candidate in sorted(alike):
        folded.setdefault(candidate.lower(), candidate)
    return tuple(folded[n] for n in difflib.get_close_matches(wanted, folded, n=count, cutoff=0.72))
