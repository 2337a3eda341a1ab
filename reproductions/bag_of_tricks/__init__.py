"""Bag of Tricks: the protocol, a script for each of its three tables of training, and their plots."""
