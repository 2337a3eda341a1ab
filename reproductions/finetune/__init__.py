"""Fine-tuning: the experiment on CIFAR-10, and the commands for one's own images."""
