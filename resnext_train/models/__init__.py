"""Networks of the ResNet and ResNeXt papers, their complexity, and weights from other tools."""
