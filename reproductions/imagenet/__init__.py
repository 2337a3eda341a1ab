"""Tables on ImageNet: the networks, the experiment, and tests of weights from elsewhere."""
