"""Bag of Tricks, section 6: classifiers of the ladder as beginnings of detectors and of networks for segmentation."""
