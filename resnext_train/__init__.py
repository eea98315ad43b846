"""resnext-train: train and evaluate ResNeXt and ResNet on ImageNet from one recipe, on any number of processes.

>>> import resnext_train as rt
>>> classifier = rt.load("runs/smoke")
>>> len(classifier.classes)
10

What can be corrected raises a ValueError, the InputError of errors.py. Importing this imports nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnext_train.api.runs import evaluate, train
    from resnext_train.config import Recipe
    from resnext_train.inference.classifier import Classifier, load
    from resnext_train.inference.prediction import Prediction

__version__ = "0.1.0"

__all__ = ["Classifier", "Prediction", "Recipe", "__version__", "evaluate", "load", "train"]

_PLACES = {
    "Classifier": "inference.classifier",
    "Prediction": "inference.prediction",
    "Recipe": "config",
    "evaluate": "api.runs",
    "load": "inference.classifier",
    "train": "api.runs",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
