"""Details of the CIFAR-10 protocol: the experiment, and the effects of changes."""
