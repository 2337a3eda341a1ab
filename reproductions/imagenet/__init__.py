"""Tables on ImageNet: the experiment, and the evaluation of given weights."""
