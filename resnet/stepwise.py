"""The part that the trainers of all tasks share: a run's progress, and the check that a checkpoint is its own."""

import torch
from torch import nn

from resnet.checkpoint import MismatchError
from resnet.device import has_bf16, keep_freed_memory, resolve_precision
from resnet.distributed import Group
from resnet.run import ROLES, Run


class Stepwise:
    """One run, advanced step by step; a trainer has a model, an optimizer and the methods of the steps, too.

    ``precision``: precision to use if the recipe's is "auto"; by default the device's choice. ``needed_digests``: the
    digests of the weights that the run begins with or learns from, by their roles. Raises ValueError for data other
    than the run's and for a precision that the recipe or the device does not have.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    needed_digests: dict[str, str]

    def __init__(self, run: Run, data, group: Group, precision: str | None):
        if run.data != data.name:
            raise ValueError(f"the run needs {run.data}, but the data are {data.name}")
        if precision is not None and run.recipe.precision not in ("auto", precision):
            raise ValueError(f"the run's precision is {run.recipe.precision}, so it can't be trained in {precision}")
        self.run, self.recipe, self.data, self.device, self.group = run, run.recipe, data, data.device, group
        keep_freed_memory(self.device)
        self.precision = resolve_precision(precision or run.recipe.precision, self.device)
        self.threads = torch.get_num_threads()  # on a CPU it determines the order of sums and so the last bits
        self.iteration, self.diverged = 0, False
        self.curve: list[dict] = []

    @property
    def finished(self) -> bool:
        """True after the run's last step, and after its loss was found not finite."""
        return self.diverged or self.iteration == self.recipe.iterations

    @property
    def evaluation_due(self) -> bool:
        """True if the recipe asks for an evaluation after the last step."""
        return self.recipe.evaluates_after(self.iteration)

    def evaluate(self) -> None:
        """Evaluate the network and add an entry to ``curve``."""
        self.begin_evaluation()
        self.finish_evaluation()

    def reached(self, mark) -> bool:
        """Return whether the device has reached a mark, an event; always true on a CPU, where it is None."""
        return mark is None or mark.query()

    def state_dict(self) -> dict:
        """Return everything that the rest of the run depends on: tensors and plain values, equal in all processes."""
        return {
            "run": self.run.identity,
            "data": self.data.digest,
            "precision": self.precision,
            **{role: self.needed_digests.get(role) for role in ROLES},
            "threads": self.threads,
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "curve": self.curve,
            "diverged": self.diverged,
        }

    def load_state_dict(self, state: dict) -> None:
        """Resume from a :meth:`state_dict` that :meth:`precision_of` has accepted."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration, self.threads, self.diverged = state["iteration"], state["threads"], state["diverged"]
        self.curve = list(state["curve"])

    def precision_of(self, state: dict) -> str:
        """Return the precision to go on with from a checkpoint.

        Raises MismatchError if the checkpoint belongs to another run, other data, or other teacher or pretrained
        weights, or if its precision can't be used by this run here.
        """
        own = {"run": self.run.identity, "data": self.data.digest}
        for name, here in (own | {role: self.needed_digests.get(role) for role in ROLES}).items():
            if (saved := state.get(name)) != here:
                raise MismatchError(name, f"the checkpoint's {name} is {saved}, but this run's is {here}")
        precision, free = state["precision"], self.recipe.precision == "auto"
        if precision != self.precision and not (free and (precision != "bf16" or has_bf16(self.device))):
            text = f"the checkpoint's precision is {precision}, but here the run's is {self.precision}"
            raise MismatchError("precision", text)
        return precision
