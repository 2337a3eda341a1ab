"""Transfer of pretrained weights to a network with other classes."""

from collections.abc import Mapping

from torch import Tensor, nn

LAST_LAYER = "fc."  # prefix of the names of its weights, in the networks of all families


def take_over(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load ``weights`` into the network except for the last, fully connected layer, which keeps its own.

    BN's running estimates are loaded, too. Raises ValueError if the loaded weights' names or shapes don't fit.
    """
    body = {name: value for name, value in weights.items() if not name.startswith(LAST_LAYER)}
    own = {name: value for name, value in model.state_dict().items() if name.startswith(LAST_LAYER)}
    try:
        model.load_state_dict(body | own)
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit this network: {error}") from error
