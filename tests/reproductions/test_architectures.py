"""The table of networks: what is computed, what stands beside it, and the command that prints it."""

from dataclasses import replace
from decimal import Decimal

import pytest
from printed import lines_of

from reproductions import __main__ as main
from reproductions import architectures, commands, reported
from reproductions.architectures import ARCHITECTURES, Architecture, architectures_table
from resnet.models import changed_options
from resnet.models.complexity import multiply_adds

FEW = (
    Architecture("ResNet-20", "cifar_resnet20", reported=("resnet20",)),
    Architecture("ResNet-50-D", "resnet50", {"variant": "d"}, ("bot_resnet50d",)),
)


@pytest.fixture
def printed(monkeypatch):
    """Reported numbers: those of the file, without any for ResNet-50, and more that a test adds."""
    numbers = [number for number in reported.load() if not number.key.startswith("bot_")]
    monkeypatch.setattr(architectures.reported, "load", lambda: tuple(numbers))
    return numbers


def test_what_is_computed_stands_beside_what_is_reported(printed):
    _, small, large = lines_of(architectures_table(FEW))
    assert small == ["ResNet-20", "cifar_resnet20", "32", "269,722", "0.27 (He et al. 2015)", "0.041"]
    assert large == ["ResNet-50-D", "resnet50 variant=d", "224", "25,576,264", "–", "4.329"]  # no FLOPs are reported


def test_only_the_papers_numbers_of_that_metric_and_unit_are_shown(printed):
    one = next(n for n in printed if n.source.origin == "paper" and n.metric == "parameters")
    other = next(n.source for n in printed if n.source.origin == "implementation")
    flops = replace(one, key="bot_resnet50d", metric="FLOPs", unit="billion", value=Decimal("4.3"))
    printed += [flops, replace(flops, unit="%"), replace(flops, metric="top-1 accuracy"), replace(flops, source=other)]
    assert lines_of(architectures_table(FEW))[2][-1] == "4.3 (He et al. 2015)"


def test_every_network_is_a_model_with_these_options():
    labels = [(net.label, net.model) for net in ARCHITECTURES]
    assert len(set(labels)) == len(labels)
    for net in ARCHITECTURES:
        named = dict(net.options)
        if net.label == "ResNet-34 B":  # the default, which stands in the table beside A and C
            assert named.pop("shortcut") == "B"
        assert changed_options(net.model, net.options) == named


def test_all_networks_whose_size_the_paper_prints_are_there():
    keys = {number.key for number in reported.load() if number.metric in ("parameters", "FLOPs")}
    assert keys <= {key for net in ARCHITECTURES for key in net.reported}


def test_the_costs_computed_are_the_papers():
    """Both papers round, and the first rounds half of its numbers down."""
    printed = {number.key: float(number.value) for number in reported.load() if number.metric == "FLOPs"}
    nets = {key: net for net in ARCHITECTURES for key in net.reported if key in printed}
    assert len(printed) == len(nets) == 9
    found = {key: multiply_adds(net.model, net.options) / 1e9 for key, net in nets.items()}
    assert found == pytest.approx(printed, abs=0.06)


def test_the_command_prints_the_table(monkeypatch, capsys):
    monkeypatch.setattr(commands, "architectures_table", lambda: architectures_table(FEW))
    assert main.main(["models"]) == 0
    assert capsys.readouterr().out == architectures_table(FEW)
