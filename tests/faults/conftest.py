"""Undisturbed launches, with which all others are compared, and the report on the injected faults."""

from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest
from faulted import Findings, Launch, Setting, examine
from reliability_page import Injection, write_page

_PAGE = pytest.StashKey["Page"]()


@dataclass
class Page:
    """The content of the report: the injected faults, and the failed and skipped tests."""

    injections: list[Injection] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def pytest_addoption(parser):
    parser.addoption("--reliability", type=Path, metavar="FILE", help="write what the fault tests saw to this page")


def pytest_configure(config):
    config.stash[_PAGE] = Page()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    page = item.config.stash.get(_PAGE, None)
    if page is not None and report.failed:
        page.failed.append(item.name)
    elif page is not None and report.skipped:
        page.skipped[item.name] = report.longrepr[2].removeprefix("Skipped: ")


def pytest_sessionfinish(session):
    path, page = session.config.getoption("--reliability", None), session.config.stash.get(_PAGE, None)
    if path is not None and page is not None and not session.config.option.collectonly:
        write_page(path, page.injections, page.failed, page.skipped)


@pytest.fixture
def launch(tmp_path):
    """A function that starts a launch: ``launch(setting, out, *flags)``. Its processes are killed after the test."""
    started = []

    def start(*arguments, **more) -> Launch:
        started.append(Launch(*arguments, logs=tmp_path, **more))
        return started[-1]

    yield start
    for one in started:
        one.kill_all()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The OUT of an undisturbed launch of a setting."""
    done: dict[Setting, Path] = {}

    def launched(setting: Setting) -> Path:
        if setting not in done:
            logs = tmp_path_factory.mktemp("undisturbed")
            out = logs / "runs"
            Launch(setting, out, "--launcher", "inline", logs=logs).succeed()
            done[setting] = out
            assert examine(setting, out, out, {}, begun_once=True).right
        return done[setting]

    return launched


@pytest.fixture
def check(undisturbed, request):
    """``check(fault, how, times, setting, outs)``: what must hold of each of these folders, and a line of the page.

    ``interruptions``: for each folder those that were injected, by run; None where they can't be counted.
    """

    def seen(fault, how, times, setting, outs, interruptions=None, begun_once=False, said=""):
        found = [
            examine(setting, out, undisturbed(setting), None if interruptions is None else interruptions[i], begun_once)
            for i, out in enumerate(outs)
        ]
        total = Findings(
            *(sum((getattr(f, name.name) for f in found), type(name.default)()) for name in fields(Findings))
        )
        known = [counts for counts in interruptions or [None] if counts is not None]
        counted = sum(sum(counts.values()) for counts in known) if known else None
        page = request.config.stash.get(_PAGE, None)
        if page is not None:
            page.injections.append(Injection(fault, how, times, len(outs) * len(setting.runs), counted, total, said))
        assert total.right, total

    return seen
