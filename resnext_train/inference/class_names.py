"""What a network's outputs are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from resnext_train.config import EvalSection
from resnext_train.data.build_loaders import predictable_classes
from resnext_train.data.sources.class_subset import read_class_names
from resnext_train.errors import InputError
from resnext_train.inference.stored_network import StoredNetwork
from resnext_train.regular_file import user_path


@dataclass(frozen=True)
class ClassNames:
    """Names of classes."""

    classes: tuple[str, ...]
    titles: tuple[str, ...] | None = None
    """What people call them; None: not known."""
    outputs: Tensor | None = None
    """The network's output for each class, int64; None: all outputs are classes, in their order."""

    def predicted(self, section: EvalSection) -> ClassNames:
        """Return the classes among which an eval section lets predictions be made, see eval.classes.

        Raises:
            InputError: eval.classes cannot be used.
        """
        among, outputs = predictable_classes(section, self.classes)
        if outputs is None:
            return self
        return ClassNames(among, self.titles and tuple(self.titles[i] for i in outputs.tolist()), outputs)


def names_of(stored: StoredNetwork, listed: str | Path | Sequence[str] | None, what: str) -> ClassNames:
    """Return the names of a network's classes: its own; or those `listed`, or in the file or folder `listed`.

    Without either they are the numbers of the outputs. `what` is the option or argument that listed them, for messages.

    Raises:
        InputError: the file or folder cannot be used, has another number of classes than the network, or is given for
            a network that knows its classes.
    """
    classes = stored.classes
    if listed is not None:
        if classes is not None:
            raise InputError(f"{what} is for foreign weights; {stored.path} knows the names of its classes")
        if isinstance(listed, (str, Path)):
            listed = read_class_names(user_path(str(listed)), what)
        classes = tuple(listed)
        stored.check_classes(len(classes))
        stated = stored.recipe.model.num_classes
        if stated not in ("auto", len(classes)):
            raise InputError(
                f"{what}: model.num_classes is {stated}, but the names of {len(classes)} classes are given"
            )
    if classes is None:
        classes = tuple(map(str, range(stored.outputs)))
    return ClassNames(classes, stored.titles_of(classes))
