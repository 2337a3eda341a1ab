"""Tables on ImageNet: the networks, the experiment, and the evaluation of given weights."""
