"""The page of all claims, with the findings of the paper and of the short profile on each."""

from collections.abc import Collection, Sequence
from textwrap import fill

from reproductions.harness.experiment import PROFILES
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.claims import (
    CONTRADICTED,
    NOT_RESOLVABLE,
    NOT_RUN,
    NOT_SHOWN,
    RULED_OUT,
    SHOWN,
    TOO_FEW,
    WITHIN_NOISE,
    about,
)
from reproductions.harness.reporting.found import Found, percent
from reproductions.harness.reporting.page import Page
from reproductions.harness.reporting.text import NONE, markdown_table

SHORT = "In short"  # the section that the README shows
_TEXT = f"""Each claim that the suite can test, with its effect, which is above 0 if the claim holds, and the 95 %
interval, corrected for the claims of its table (Bonferroni). Effects are in percentage points; of layer responses they
are differences of standard deviations, and for a claim that is a reported accuracy the effect is the mean here minus
the reported number. A claim is *shown* where the interval lies above 0 and *contradicted* where it lies below. Where it
includes 0, the claim is *not resolvable* if these runs would find an effect as large as the reported one with a
probability (power) of less than {100 * intervals.POWER:.0f} %, else *not shown*. A test needs {intervals.FEWEST} runs
of each net: with *{TOO_FEW}*, or none, the power is computed for the wanted number. A step has *{WITHIN_NOISE}* if two
runs of one row may differ by as much as it is reported to do. That a reported error is the best of several runs is
*{RULED_OUT}* if it lies outside the 95 % prediction interval of the best of as many further runs. Reported effects of
Bag of Tricks are on ImageNet, and on ADE20K and PASCAL VOC for its transfer; ≈ marks effects of numbers that were read
off a figure. The short profile is {PROFILES["short"].split(": ")[1]}: its effects must not be compared with the
reported ones. Not all claims are the papers': some ask what others asked of the papers' numbers, and some what training
on other data shows."""


def write_claims(pages: Sequence[Page], written: Sequence[Page]) -> str:
    """Return the text of the page. ``pages``: of all tables, of which those ``written`` have numbers."""
    found: dict[str, dict[str, tuple[Page, list[Found]]]] = {}  # by experiment and profile
    for page in pages:
        if page.experiment.claims is not None:
            profiles = found.setdefault(page.experiment.name, {})
            known = profiles.get(page.variant.profile)
            if known is None or (known[0] not in written and page in written):  # a departure where the default has none
                profiles[page.variant.profile] = page, page.experiment.claims(page)
    sections = [_section(profiles, written) for profiles in found.values()]
    head = f"# The papers' claims, and what was found\n\n{fill(_TEXT, 120, break_on_hyphens=False)}\n"
    return "\n".join([head, f"## {SHORT}\n\n{_in_short(found.values())}", *sections])


def _in_short(found: Collection[dict[str, tuple[Page, list[Found]]]]) -> str:
    """Write three lines: the papers' claims shown by their protocol and in the short profile, and the others.

    Claims of other reports, and of tables by another protocol, are left out.
    """
    pages = [
        both for profiles in found for both in profiles.values() if both[0].experiment.protocol == PROFILES["paper"]
    ]

    def listed(word: str, profile: str) -> str:
        own = [one for page, claims in pages if page.variant.profile == profile for one in claims]
        return "; ".join(one.text for one in own if one.statement.startswith(word))

    lines = [
        f"- Shown {where}: {listed(SHOWN, profile) or 'nothing yet'}.\n"
        for profile, where in {"paper": "by the paper's protocol", "short": "in the short profile"}.items()
    ]
    others = [
        f"{word.capitalize()} in the {profile} profile: {claims}. "
        for word in (CONTRADICTED, NOT_SHOWN)
        for profile in ("paper", "short")
        if (claims := listed(word, profile))
    ]
    statements = [one.statement for _, claims in pages for one in claims]
    words = (NOT_RESOLVABLE, RULED_OUT, f"not {RULED_OUT}", TOO_FEW, NOT_RUN, WITHIN_NOISE)
    counts = {word: sum(one.startswith(word) for one in statements) for word in words}
    said = "; ".join(f"{word}, {count}" for word, count in counts.items() if count)
    said = (
        said
        and f"The others of {len(statements)} claims about the papers' tables, each counted once a profile: {said}."
    )
    return "".join([*lines, f"- {''.join(others)}{said}".rstrip(), "\n"])


def _section(profiles: dict[str, tuple[Page, list[Found]]], written: Sequence[Page]) -> str:
    """Write the table of one experiment's claims."""
    first, _ = next(iter(profiles.values()))
    by_key: dict[str, dict[str, Found]] = {}
    for profile, (_, own) in profiles.items():
        for one in own:
            by_key.setdefault(one.key, {})[profile] = one
    columns = {"claim": [next(iter(own.values())).text for own in by_key.values()]}
    for profile, (page, _) in profiles.items():
        name = page.variant.name
        own = [claims.get(profile) for claims in by_key.values()]
        if profile == "paper":
            columns["reported"] = [about(one.reported, one.doubt) if one else NONE for one in own]
            columns["power"] = [percent(one and one.power) for one in own]
        columns[f"{name}: effect"] = [one.measured if one else NONE for one in own]
        columns[f"{name}: found"] = [one.statement if one else NONE for one in own]
    shown = {h: cells for h, cells in columns.items() if h == "claim" or "found" in h or set(cells) != {NONE}}
    links = [
        f"[{page.variant.name}](tables/{page.experiment.name}{page.variant.suffix}.md)"
        for page, _ in profiles.values()
        if page in written
    ]
    heading = f"## {first.experiment.title}\n\n{first.experiment.source}"
    return f"{heading} · {'tables: ' + ', '.join(links) if links else 'no records yet'}\n\n{markdown_table(shown)}"
