"""The plugins of one run at work: their hooks, called by the trainer, and checks of the results.

``batch``, ``loss`` and the network are called inside the step that a CUDA graph records; ``after_step`` and
``evaluate_with`` outside of it. Each name and signature is in :data:`resnet.plugins.HOOKS`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from resnet.data.sampling import seeded_generator
from resnet.draws import Draws, own_numbers_only
from resnet.models import create_model
from resnet.plugins import HOOKS, PluginError
from resnet.recipe import Recipe


class Hooks:
    """The objects of a recipe's plugins, in their order, for one run.

    The first calls of ``batch``, ``loss`` and ``after_step`` raise DrawsError if they draw random numbers from a global
    generator, and ``model`` from any but PyTorch's, which is the run's own there. ``running``: the hook that is being
    called, empty between hooks; after an error it is the hook that failed. Raises PluginError for a plugin that can't
    be used, and for plugins and fields of the recipe that contradict each other.
    """

    def __init__(self, recipe: Recipe):
        self.plugins = recipe.plugins
        self._objects = [(plugin.path, plugin.load()) for plugin in recipe.plugins]
        self.running = ""
        self._watched: set[str] = set()  # hooks whose first call was watched for global random numbers
        for name in ("loss", "evaluate_with"):
            if len(several := [path for path, _ in self._having(name)]) > 1:
                raise PluginError(f"{' and '.join(several)} both have the hook {name}; only one plugin can have it")
        contradictions = {"loss": "label_smoothing", "evaluate_with": "statistics_batches"}
        for name, field in contradictions.items():
            if (having := self._having(name)) and getattr(recipe, field):
                text = f"plugin {having[0][0]} has the hook {name}, so the recipe's {field} has no effect"
                raise PluginError(f"{text}; leave one of them out")

    def __bool__(self) -> bool:
        return bool(self._objects)

    def model(self, network: nn.Module, seed: int) -> nn.Module:
        """Let the plugins change or replace a new network; the weights that they add are drawn by the run's seed."""
        for number, (name, hook) in enumerate(self._called("model")):
            watching = own_numbers_only(name, torch.device("cpu"))  # PyTorch's generator is back by its end
            with self._running(name), watching, torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seeded_generator(seed, "plugin", number).initial_seed())
                network = hook(network)
            _check(isinstance(network, nn.Module), name, "the network, an nn.Module", network)
        return network

    def batch(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Let the plugins change images (n, C, H, W) and targets: labels (n,), or the classes' shares (n, K)."""
        for number, (name, hook) in enumerate(self._called("batch")):
            with self._running(name), self._watching(name, images.device):
                result = hook(images, labels, draws.of(f"batch {number}"))
            wanted = (
                f"images {tuple(images.shape)} and targets, int64 ({len(images)},) or float ({len(images)}, classes)"
            )
            _check(isinstance(result, tuple) and len(result) == 2, name, wanted, result)
            new, targets = result
            right = isinstance(new, Tensor) and new.shape == images.shape and new.is_floating_point()
            right = right and isinstance(targets, Tensor) and len(targets) == len(images) and targets.dim() in (1, 2)
            right = right and (targets.is_floating_point() if targets.dim() == 2 else targets.dtype == torch.int64)
            _check(right, name, wanted, result)
            images, labels = new, targets
        return images, labels

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor | None:
        """Compute the mean loss () by the plugin that has this hook, from logits in fp32; None without one."""
        for name, hook in self._called("loss"):
            with self._running(name), self._watching(name, logits.device):
                loss = hook(logits.float(), targets)
            right = isinstance(loss, Tensor) and loss.shape == () and loss.requires_grad
            _check(right, name, "a loss, a tensor () with a gradient", loss)
            return loss
        return None

    @contextmanager
    def in_network(self) -> Iterator[None]:
        """Note that the network is being called, if a plugin has changed it."""
        changed = [name for name, _ in self._called("model")]
        with self._running(f"the network of {', '.join(changed)}" if changed else ""):
            yield

    def after_step(self, trainer) -> None:
        """Tell the plugins that a step is done."""
        for name, hook in self._called("after_step"):
            with self._running(name), self._watching(name, trainer.device):
                hook(trainer)

    def evaluate_with(self, network: nn.Module) -> nn.Module:
        """Return the network to test and to keep the weights of: a plugin's, or ``network`` itself."""
        for name, hook in self._called("evaluate_with"):
            with self._running(name), torch.no_grad():
                result = hook(network)
            _check(isinstance(result, nn.Module), name, "the network to test, an nn.Module", result)
            own, wanted = ({(k, v.shape) for k, v in one.state_dict().items()} for one in (result, network))
            different = sorted({key for key, _ in own ^ wanted})
            text = "a network with weights of the same names and shapes"
            _check(not different, name, text, f"another {', '.join(different[:3])}")
            network = result
        return network

    def state_dict(self) -> list:
        """Return the state of each plugin: tensors and plain values, None for one without."""
        states = []
        for path, one in self._objects:
            name, state = f"plugin {path}: state_dict", one.state_dict() if hasattr(one, "state_dict") else None
            _check(_is_storable(state), name, "tensors and plain values in dicts and lists", state)
            states.append(state)
        return states

    def load_state_dict(self, states: list) -> None:
        """Restore the plugins from their :meth:`state_dict`."""
        for (_, one), state in zip(self._objects, states, strict=True):
            if hasattr(one, "load_state_dict"):
                one.load_state_dict(state)

    def _having(self, name: str) -> list[tuple[str, object]]:
        assert name in HOOKS
        # Of the class, because an object may have an option under the same name.
        return [(path, one) for path, one in self._objects if callable(getattr(type(one), name, None))]

    def _called(self, name: str) -> list[tuple[str, Callable]]:
        return [(f"plugin {path}: {name}", getattr(one, name)) for path, one in self._having(name)]

    @contextmanager
    def _running(self, name: str) -> Iterator[None]:
        self.running = name
        yield
        self.running = ""

    @contextmanager
    def _watching(self, name: str, device: torch.device) -> Iterator[None]:
        """Refuse global random numbers in the first call of a hook; the warm-up of a CUDA graph calls it first."""
        if name in self._watched:
            yield
            return
        with own_numbers_only(name, device):
            yield
        self._watched.add(name)


def build(run, num_classes: int, generator: torch.Generator | None = None, hooks: Hooks | None = None) -> nn.Module:
    """Build the network of a :class:`resnet.run.Run`, as its plugins change it. Raises PluginError.

    ``hooks``: the run's, which are else made here.
    """
    network = create_model(run.model, generator, **{"num_classes": num_classes, **run.model_options})
    return (Hooks(run.recipe) if hooks is None else hooks).model(network, run.seed)


def _check(right: bool, name: str, wanted: str, found) -> None:
    if not right:
        raise PluginError(f"{name} must return {wanted}; it returned {_shown(found)}")


def _shown(value) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    if value is None or isinstance(value, str):
        return str(value)
    return f"an object of the class {type(value).__name__}"


def _is_storable(value) -> bool:
    """Return whether a checkpoint can hold a value: reading it must not execute code."""
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) and _is_storable(one) for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_storable, value))
    return value is None or type(value) in (bool, int, float, str) or isinstance(value, Tensor)
