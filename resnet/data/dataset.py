"""A data set of small images held in memory."""

import hashlib
from dataclasses import dataclass, field

import numpy as np


class DataError(Exception):
    """Missing or damaged data. The message names the file and says what to do."""


@dataclass(frozen=True)
class ImageDataset:
    """Images uint8 (N, H, W, 3) and labels uint8 (N,), each label below ``num_classes``.

    ``official`` says whether the arrays come from files with the data set's published checksums. ``digest`` is the
    SHA-256 of the arrays' bytes, in the order of the fields.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    official: bool
    num_classes: int = 10
    digest: str = field(init=False)

    def __post_init__(self):
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(np.ascontiguousarray(array))
        object.__setattr__(self, "digest", digest.hexdigest())
