"""Details of the CIFAR-10 protocol: the experiment, and its forest plot."""
