"""resnext-train: train and evaluate ResNeXt and ResNet on ImageNet from one recipe, on any number of processes."""

__version__ = "0.1.0"
