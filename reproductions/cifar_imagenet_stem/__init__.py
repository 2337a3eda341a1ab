"""ImageNet's ResNet-18 and ResNet-34 on CIFAR-10: the experiment, and the predictions of its networks."""
