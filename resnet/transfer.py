"""The weights of one network as the beginning of another that tells other classes apart."""

from collections.abc import Mapping

from torch import Tensor, nn

LAST_LAYER = "fc."  # what the names of its weights begin with, in the networks of all families


def take_over(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give the network all ``weights`` but those of the last, fully connected layer, which keeps its own.

    BN's running estimates are among them. Raises ValueError where the others are not just those of the network.
    """
    body = {name: value for name, value in weights.items() if not name.startswith(LAST_LAYER)}
    own = {name: value for name, value in model.state_dict().items() if name.startswith(LAST_LAYER)}
    try:
        model.load_state_dict(body | own)
    except RuntimeError as error:
        raise ValueError(f"the weights are not those of this network: {error}") from error
