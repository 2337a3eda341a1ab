"""MNIST's files, its synthetic stand-in, and the small residual net against a plain implementation."""

import hashlib
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.datasets.mnist
from nets import generator

from resnet import data
from resnet.data import DataError, mnist, synthetic
from resnet.data.resident import ResidentData
from resnet.data.synthetic import make_synthetic
from resnet.models import count_parameters, create_model
from resnet.models import mnist as mnist_models
from resnet.models.complexity import multiply_adds, training_flops
from resnet.recipe import Recipe
from resnet.run import Run

SHAPES = {"train_images": (50, 28, 28), "train_labels": (50,), "test_images": (10, 28, 28), "test_labels": (10,)}
RECIPE = Recipe(normalization="channel_std", augment=False, last_batch="use", batch_size=16)


def make_arrays():
    rng = np.random.default_rng(0)
    limits = {True: 10, False: 256}
    return {name: rng.integers(0, limits["labels" in name], shape, dtype=np.uint8) for name, shape in SHAPES.items()}


@pytest.fixture
def small(monkeypatch):
    """MNIST with 50 and 10 images."""
    monkeypatch.setattr(mnist, "SHAPES", SHAPES)


@pytest.fixture
def archive(small, tmp_path):
    np.savez_compressed(tmp_path / "mnist.npz", **make_arrays())
    return tmp_path / "mnist.npz"


@pytest.fixture
def files(small, tmp_path, monkeypatch):
    """Files like the official ones, and the list of their checksums."""
    folder, listed = tmp_path / "MNIST" / "raw", {}
    folder.mkdir(parents=True)
    for name, array in make_arrays().items():
        file, _ = mnist.FILES[name]
        content = struct.pack(f">{1 + array.ndim}i", 0x800 + array.ndim, *array.shape) + array.tobytes()
        (folder / file).write_bytes(content)
        listed[name] = file, hashlib.md5(content).hexdigest()
    monkeypatch.setattr(mnist, "FILES", listed)
    return folder


# ----------------------------------------------------------------------------------------------------------------- data


def test_shapes_are_mnists():
    assert mnist.SHAPES["train_images"] == (60_000, 28, 28) and mnist.SHAPES["test_labels"] == (10_000,)
    assert data.TRAIN_IMAGES["mnist"] == 60_000 and data.IMAGE_SHAPES["mnist"] == (28, 28, 1)


def test_archive_has_images_of_one_channel_and_the_digest_of_its_bytes(archive):
    dataset, arrays = data.load("mnist", archive.parent, download=False), make_arrays()
    assert np.array_equal(dataset.train_images, arrays["train_images"].reshape(50, 28, 28, 1))
    assert np.array_equal(dataset.test_images, arrays["test_images"].reshape(10, 28, 28, 1))
    assert np.array_equal(dataset.train_labels, arrays["train_labels"])
    assert np.array_equal(dataset.test_labels, arrays["test_labels"])
    assert (dataset.name, dataset.num_classes, dataset.official) == ("mnist", 10, False)
    assert dataset.digest == hashlib.sha256(b"".join(arrays[name].tobytes() for name in SHAPES)).hexdigest()


def test_wrong_or_damaged_archive_is_an_error_that_names_it(archive):
    np.savez(archive, **make_arrays() | {"test_images": np.zeros((10, 28, 28, 1), np.uint8)})
    with pytest.raises(DataError, match=r"mnist.npz: test_images is uint8 \(10, 28, 28, 1\), not uint8 \(10, 28, 28\)"):
        data.load("mnist", archive.parent, download=False)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(DataError, match="mnist.npz is damaged.*or remove it to download the official files"):
        data.load("mnist", archive.parent, download=False)


def test_official_files_give_the_same_arrays(files, tmp_path):
    official = data.load("mnist", tmp_path, download=False)
    np.savez(tmp_path / "mnist.npz", **make_arrays())
    archive = data.load("mnist", tmp_path, download=False)
    assert official.official and not archive.official
    assert official.digest == archive.digest and official.train_images.shape == (50, 28, 28, 1)
    assert official.train_images.flags.writeable  # torch warns of arrays that are not


@pytest.mark.parametrize("place", ["MNIST", "MNIST/raw"])
def test_the_folder_of_the_official_files_may_be_named_itself(files, tmp_path, monkeypatch, place):
    monkeypatch.setattr(torchvision.datasets.mnist.MNIST, "download", lambda self: pytest.fail("downloads"))
    assert data.load("mnist", tmp_path / place).official


def test_official_file_with_another_checksum_is_an_error_that_names_it(files, tmp_path):
    path = files / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[1_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="train-images-idx3-ubyte is damaged: its MD5 is .* remove it"):
        data.load("mnist", tmp_path)


def test_the_files_are_those_that_torchvision_downloads():
    packed = {name for name, _ in torchvision.datasets.mnist.MNIST.resources}
    assert {f"{name}.gz" for name, _ in mnist.FILES.values()} == packed


@pytest.mark.parametrize(("download", "reason"), [(False, "downloading is off"), (True, "no network")])
def test_missing_files_say_what_to_do(files, tmp_path, monkeypatch, download, reason):
    def off_line(*arguments, **options):
        raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", off_line)
    (files / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError) as caught:
        data.load("mnist", tmp_path, download)
    message = str(caught.value)
    assert f"{files} lacks t10k-labels-idx1-ubyte, which" in message and reason in message
    assert "mnist.npz" in message and "--data" in message


def test_the_usual_constants_are_the_training_images_own_statistics():
    try:
        dataset = data.load("mnist", Path(__file__).parents[2] / "data", download=False)
    except DataError as error:
        pytest.skip(f"needs the real data: {error}")
    assert dataset.official or dataset.digest in data.KNOWN_COPIES
    placed = ResidentData(dataset, None, "cpu")
    mean, scale = placed.normalization(RECIPE)
    assert mean.unique().item() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert 1 / (255 * scale.item()) == pytest.approx(0.3081, abs=5e-5)


def test_the_stand_in_is_grey_and_of_mnists_size():
    dataset = data.load("synthetic_mnist")
    assert (dataset.name, dataset.num_classes) == ("synthetic_mnist", 10)
    assert dataset.train_images.shape == (synthetic.TRAIN_IMAGES, 28, 28, 1)
    assert data.TRAIN_IMAGES["synthetic_mnist"] == synthetic.TRAIN_IMAGES
    assert data.IMAGE_SHAPES["synthetic_mnist"] == dataset.test_images.shape[1:]
    assert np.bincount(dataset.test_labels).tolist() == 10 * [synthetic.TEST_IMAGES // 10]


def test_batches_of_one_channel_are_normalised_and_no_image_is_left_out():
    dataset = make_synthetic(50, 20, pixels=28, channels=1, name="synthetic_mnist")
    placed = ResidentData(dataset, None, "cpu")
    batches = placed.batches(0, RECIPE, [slice(None)])
    sizes, seen = [], []
    for step in range(4):
        batches.load(step)
        ((images, labels),) = batches.take(batches.size(step))
        assert images.shape == (len(labels), 1, 28, 28)
        sizes.append(len(labels))
        seen.append(images)
    assert sizes == [16, 16, 16, 2]
    grey = dataset.train_images.astype(np.float64)
    expected = torch.from_numpy((grey - grey.mean()) / grey.std()).permute(0, 3, 1, 2).float()
    assert torch.allclose(torch.cat(seen).sum(dim=0), expected.sum(dim=0), atol=1e-3)
    ((first, _), *_) = placed.tests("test", slice(0, 2), RECIPE)
    of_test = (dataset.test_images[:2].astype(np.float64) - grey.mean()) / grey.std()
    assert torch.allclose(first.double(), torch.from_numpy(of_test).permute(0, 3, 1, 2), atol=1e-5)


def test_grey_images_are_cropped_and_flipped_like_others():
    dataset = make_synthetic(50, 20, pixels=28, channels=1)
    recipe = Recipe(batch_size=16)
    grey = ResidentData(dataset, None, "cpu").batches(0, recipe, [slice(None)])
    thrice = [np.repeat(images, 3, axis=3) for images in (dataset.train_images, dataset.test_images)]
    coloured = data.ImageDataset("x", thrice[0], dataset.train_labels, thrice[1], dataset.test_labels, official=True)
    colour = ResidentData(coloured, None, "cpu").batches(0, recipe, [slice(None)])
    for batches in (grey, colour):
        batches.load(0)
    ((one, _),), ((three, _),) = grey.take(16), colour.take(16)
    assert torch.equal(one.expand(-1, 3, -1, -1), three)


# ------------------------------------------------------------------------------------------------------------------ net


def plainly(weights: dict, x: torch.Tensor) -> torch.Tensor:
    """The forward pass as the report describes it, layer by layer."""

    def convolution(name, x, padding=0):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    for number, pixels in ((1, 12), (2, 4)):
        x = torch.relu(F.max_pool2d(convolution(f"conv{number}", x), 2))
        assert x.shape[1:] == (16 * number, pixels, pixels)
        inside = torch.relu(convolution(f"block{number}.conv1", x, padding=1))
        x = torch.relu(convolution(f"block{number}.conv2", inside, padding=1) + x)
    return x.reshape(len(x), 512) @ weights["fc.weight"].T + weights["fc.bias"]


@pytest.mark.parametrize("initialization", ["uniform", "fan_out"])
def test_the_net_is_what_the_report_describes(initialization):
    model = create_model("mnist_residual", initialization=initialization, generator=generator())
    x = torch.randn(3, 1, 28, 28, generator=generator(1))
    expected = plainly(model.state_dict(), x)
    torch.testing.assert_close(model(x), expected)
    channels_last = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last, expected)


def test_parameters_and_multiply_adds_by_hand():
    convolutions = {(1, 16, 5): 24, (16, 32, 5): 8}  # channels before and after, kernel: pixels of the output's side
    blocks = {(16, 16, 3): 12, (32, 32, 3): 4}  # two of each

    def weights(before, after, kernel):
        return before * after * kernel**2

    layers = [*convolutions, *blocks, *blocks]
    count = sum(weights(*layer) + layer[1] for layer in layers) + 512 * 10 + 10
    assert count_parameters(create_model("mnist_residual")) == count == 41_514
    pixels = convolutions | blocks
    work = sum(weights(*layer) * pixels[layer] ** 2 for layer in layers) + 512 * 10
    assert multiply_adds("mnist_residual") == work == 2_013_184
    assert training_flops("mnist_residual") == 2 * (3 * work - 16 * 25 * 24**2)


def test_the_uniform_initialization_is_pytorchs_own():
    """Every parameter is spread as in layers that nobody initialised."""
    torch.manual_seed(0)
    untouched = mnist_models.SmallResidualNet(10).state_dict()
    for name, own in create_model("mnist_residual", generator=generator()).state_dict().items():
        fan_in = untouched[name.replace("bias", "weight")][0].numel()
        assert max(own.abs().max(), untouched[name].abs().max()) <= 1 / math.sqrt(fan_in), name
        if own.numel() > 100:
            assert own.std().item() == pytest.approx(untouched[name].std().item(), rel=0.1), name


@pytest.mark.parametrize(("model", "name"), [("mnist_residual", "cifar10"), ("cifar_resnet20", "mnist")])
def test_a_net_is_not_trained_on_images_of_other_channels(model, name):
    with pytest.raises(ValueError, match=f"{model} takes images with . channel.* of {name} have"):
        Run(model, data=name)
