"""Layer responses: against plain statements of them, by hand, and in the layers' order."""

import pytest
import torch
from torch import nn

from reproductions.layer_responses.responses import layer_names, response_deviations
from resnet.models import create_model


def make_net(name="cifar_resnet8", **options):
    """A net whose BN layers have scales, shifts and running statistics of their own."""
    generator = torch.Generator().manual_seed(0)
    model = create_model(name, generator, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 2, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(generator=generator)
    return model


def make_batches(*sizes):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 3, 32, 32, generator=generator), torch.zeros(n, dtype=torch.int64)) for n in sizes]


@pytest.mark.parametrize("name", ["cifar_plain8", "cifar_resnet8"])
def test_deviations_are_those_of_all_outputs_of_each_bn(name):
    model, batches = make_net(name), make_batches(5, 3)
    outputs = {}

    def keep(layer):
        return lambda module, inputs, output: outputs.setdefault(layer, []).append(output.clone())

    hooks = [m.register_forward_hook(keep(n)) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    model.eval()
    with torch.no_grad():
        for images, _ in batches:
            model(images)
    for hook in hooks:
        hook.remove()
    expected = {n.replace("bn", "conv"): torch.cat(o).double().std(correction=0).item() for n, o in outputs.items()}
    found = response_deviations(model, batches)
    assert list(found) == list(expected)  # in the order in which images pass
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_layers_of_figure_7():
    for depth in (20, 56):
        plain, residual = (layer_names(create_model(f"cifar_{kind}{depth}")) for kind in ("plain", "resnet"))
        assert plain == residual and len(plain) == depth - 1
    assert plain[:4] == ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1"]
    assert plain[-1] == "layer3.8.conv2"


def test_projections_are_no_3x3_layers():
    assert layer_names(create_model("cifar_resnet8", shortcut="C")) == layer_names(create_model("cifar_resnet8"))


def test_the_model_is_left_as_it_was():
    model = make_net().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    response_deviations(model, make_batches(2))
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_net_without_bn_is_refused():
    with pytest.raises(ValueError, match="after BN"):
        layer_names(create_model("mnist_residual"))
