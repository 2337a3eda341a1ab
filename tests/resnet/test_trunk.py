"""A trunk's features are the net's own, and dilation changes their stride alone."""

import copy

import pytest
import torch
from nets import generator
from torch import nn

from resnet.models import create_model
from resnet.tasks.trunk import Trunk

NETS = [
    ("cifar_plain8", {}),
    ("cifar_resnet8", {"shortcut": "A"}),
    ("cifar_resnet14", {"shortcut": "B"}),
    *(("cifar_bottleneck11", {"variant": variant}) for variant in ("original", "b", "c", "d")),
    ("resnet18", {"variant": "c"}),
    ("resnet50", {"variant": "b"}),
    ("resnet50", {"variant": "d"}),
]


def trained(name, options):
    """A net whose BN has seen something, so that leaving out a part of it is noticed."""
    net, numbers = create_model(name, generator=generator(), **options), generator(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in ((module.running_mean, -0.5), (module.running_var, 0.5), (module.bias.data, -0.5)):
                values.uniform_(low, low + 1, generator=numbers)
    return net.eval()


@pytest.mark.parametrize(("name", "options"), NETS)
@torch.no_grad()
def test_the_features_are_the_nets_own(name, options):
    net, images = trained(name, options), torch.randn(2, 3, 45, 64, generator=generator(2))
    expected = net.maps(images.clone())
    trunk = Trunk(copy.deepcopy(net))
    features = trunk(images.clone())
    assert torch.equal(features[-1], expected) and len(features) == len(net.stages)
    assert [f.shape[1] for f in features] == trunk.channels
    assert [tuple(-(-side // stride) for side in (45, 64)) for stride in trunk.strides] == [
        tuple(f.shape[2:]) for f in features
    ]
    assert torch.equal(net.fc(expected.mean((2, 3))), net(images.clone()))
    shorter = Trunk(copy.deepcopy(net), stages=-1)(images.clone())
    assert torch.equal(shorter[-1], features[-2]) and len(shorter) == len(features) - 1


@pytest.mark.parametrize(("name", "options"), NETS)
@torch.no_grad()
def test_dilated_features_at_the_old_places_are_the_old_ones(name, options):
    net = trained(name, options).double()
    images = torch.randn(2, 3, 64, 45, generator=generator(2), dtype=torch.float64)
    strides = Trunk(copy.deepcopy(net)).strides
    for stride in strides[:-1]:
        old, new = copy.deepcopy(net), Trunk(copy.deepcopy(net), stride=stride)
        for stage, own in zip(old.stages, strides):
            first = getattr(old, stage)[0]
            if options.get("variant") == "d" and own > stride:  # a dilated stage has no pooling
                first.downsample[0] = nn.AvgPool2d(1, stride=2)
        assert new.strides == [min(stride, own) for own in strides]
        for dilated, kept, own in zip(new(images.clone()), Trunk(old)(images.clone()), strides):
            step = max(1, own // stride)
            assert dilated.shape[2:] == tuple(-(-side // min(own, stride)) for side in images.shape[2:])
            torch.testing.assert_close(dilated[:, :, ::step, ::step], kept)


def test_dilation_leaves_no_pooling_in_the_shortcuts_and_the_names_of_weights():
    net = create_model("resnet50", variant="d")
    names = [name for name in net.state_dict() if not name.startswith("fc.")]
    trunk = Trunk(net, stride=8)
    assert list(trunk.state_dict()) == names
    assert isinstance(trunk.layer2[0].downsample[0], nn.AvgPool2d)
    assert not any(
        isinstance(module, nn.AvgPool2d) for stage in (trunk.layer3, trunk.layer4) for module in stage.modules()
    )
    assert [block.conv2.dilation[0] for block in trunk.layer3] == [1, 2, 2, 2, 2, 2]
    assert [block.conv2.dilation[0] for block in trunk.layer4] == [2, 4, 4]


def test_a_stride_that_no_stage_has_is_refused():
    with pytest.raises(ValueError, match="stride of 1 or 2 or 4, not 3"):
        Trunk(create_model("cifar_resnet8"), stride=3)
