"""Networks of the ResNet and ResNeXt papers, their sizes, and weights from elsewhere."""
