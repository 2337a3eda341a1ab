"""The part that the trainers of all tasks share: where a run stands, and whether a checkpoint is its own."""

from resnet.checkpoint import MismatchError
from resnet.device import has_bf16
from resnet.run import ROLES


class Stepwise:
    """One run, advanced step by step. A trainer has the run, recipe, data, device, iteration and what is used below."""

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
