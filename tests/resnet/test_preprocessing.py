"""The conversion of images to a network's input: its values on cards, and the images that it accepts."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from resnet import preprocessing
from resnet.checkpoint import digest_of_weights
from resnet.data import load, place
from resnet.data.crops import centre_box, centre_square, crop, read_image
from resnet.models import create_model
from resnet.preprocessing import of_card, of_image_files, of_known_data, of_resident_data
from resnet.recipe import Recipe
from resnet.released import load_model, preprocess, read_card, write_weights
from resnet.run import Run
from resnet.weights import WeightsError

RELEASED = sorted((Path(__file__).resolve().parents[2] / "weights").glob("*.safetensors"))
KNOWN_SHA256 = "3d23598b9a29cec03560c35ee03d54ca18f80f77a74d94fc675667bbf3d934fe"
NORMALIZATIONS = ("pixel_mean", "channel_mean", "channel_std", "image_std")


@pytest.fixture(scope="module")
def data():
    return place(load("synthetic"), None, "cpu")


@pytest.fixture(params=NORMALIZATIONS)
def recipe(request):
    return Recipe(normalization=request.param)


def drawn(*shape, seed=0):
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_images_are_those_that_a_run_is_tested_on_bit_for_bit_after_a_way_over_a_card(data, recipe):
    own = of_resident_data(data, recipe)
    images, _ = next(iter(data.tests("test", slice(5), recipe)))
    pixels = load("synthetic").test_images[:5]
    for conversion in own, of_card(own.card(), Path("x")):
        assert torch.equal(conversion(pixels), images) and conversion(pixels).dtype == torch.float32
        assert conversion.image_size == 32 and conversion.whole
    shapes = {"pixel_mean": (32, 32, 3)}
    assert tuple(own.mean.shape) == shapes.get(recipe.normalization, (3,))


@pytest.mark.filterwarnings("error")
def test_one_image_and_a_batch_in_all_layouts(data):
    convert = of_resident_data(data, Recipe())
    batch = drawn(4, 32, 32, 3)
    expected = convert(batch)
    assert expected.shape == (4, 3, 32, 32)
    first = [batch[0], batch[0].numpy(), batch[0].permute(2, 0, 1), Image.fromarray(batch[0].numpy())]
    first.append(batch.numpy()[0, :, ::-1].copy()[:, ::-1])  # negative strides
    assert all(torch.equal(convert(image), expected[0]) for image in first)
    assert torch.equal(convert(batch.permute(0, 3, 1, 2)), expected)


def test_grey_images():
    convert = of_resident_data(place(load("synthetic_mnist"), None, "cpu"), Recipe())
    image = drawn(28, 28)
    for one in (image, image[..., None], image[None], image.numpy(), Image.fromarray(image.numpy())):
        assert torch.equal(convert(one), convert(image)) and convert(one).shape == (1, 28, 28)
    assert convert(drawn(5, 28, 28)).shape == convert(drawn(5, 28, 28, 1)).shape == (5, 1, 28, 28)
    assert torch.equal(convert(Image.fromarray(image.numpy()).convert("RGB")), convert(image))


@pytest.mark.parametrize(("whole", "box"), [(True, centre_square), (False, centre_box)])
def test_a_picture_of_another_size_is_cut_and_scaled(whole, box):
    convert, picture = replace(of_image_files(32), whole=whole), Image.fromarray(drawn(60, 90, 3).numpy())
    assert torch.equal(convert(picture), convert(crop(picture, box(90, 60), 32).copy()))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(32, 32, 3), "must be uint8, with pixels from 0 to 255, not torch.float32"),
        (np.zeros((32, 32, 3)), "not torch.float64"),
        (drawn(31, 32, 3), r"must have the shape \(32, 32, 3\) or \(3, 32, 32\), .* not \(31, 32, 3\)"),
        (drawn(32, 32), r"not \(32, 32\)"),
        (drawn(2, 2, 32, 32, 3), r"not \(2, 2, 32, 32, 3\)"),
    ],
)
def test_other_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        of_image_files(32)(images)


@pytest.mark.parametrize(
    ("images", "kind", "hint"),
    [
        ("a.png", "str", ": open a file"),
        (Path("a.png"), "PosixPath", ": open a file"),
        ([[0]], "list", "$"),
        (None, "None", ""),
    ],
)
def test_what_is_no_image_is_refused_with_what_is_one(images, kind, hint):
    with pytest.raises(TypeError, match=f"a Pillow image, or a uint8 array or tensor, not {kind}{hint}"):
        of_image_files(32)(images)


def test_it_is_shown_in_a_line(data):
    shown = repr(of_resident_data(data, Recipe()))
    assert shown == "Preprocessing(mean=float32 (32, 32, 3), scale=0.00392157, image_size=32, whole=True)"
    assert repr(of_image_files(224)).startswith("Preprocessing(mean=float32 (3,), scale=float32 (3,), image_size=224, ")


# ---------------------------------------------------------------------------------------------------------------- files


def write(path, state, **card):
    write_weights(path, state, {"model": "cifar_resnet8", "weights_sha256": digest_of_weights(state), **card})
    return path


@pytest.fixture(scope="module")
def state():
    return create_model("cifar_resnet8").state_dict()


def test_a_file_gives_its_network_with_the_conversion(tmp_path, state, data):
    own = of_resident_data(data, Recipe())
    path, images = write(tmp_path / "w.safetensors", state, **own.card()), drawn(2, 32, 32, 3)
    model = load_model(path)
    assert torch.equal(model.fc.weight, state["fc.weight"]) and "preprocessing" not in model.state_dict()
    assert torch.equal(model.preprocessing(images), own(images)) and torch.equal(preprocess(path)(images), own(images))
    assert torch.equal(load_model("cifar_resnet8", path).preprocessing(images), own(images))
    with pytest.raises(WeightsError, match="holds cifar_resnet8, not cifar_resnet8 shortcut=B"):
        load_model(path, shortcut="B")


def test_a_file_without_the_values_says_so(tmp_path, state):
    path = write(tmp_path / "w.safetensors", state, input="grey images")
    assert load_model(path).preprocessing is None
    with pytest.raises(WeightsError, match="does not say how images are normalised .*; its card says: grey images"):
        preprocess(path)
    torch.save(state, tmp_path / "w.pt")
    assert load_model("cifar_resnet8", tmp_path / "w.pt").preprocessing is None
    with pytest.raises(WeightsError, match=r'no card that names its network: .* load_model\("cifar_resnet20", '):
        load_model(tmp_path / "w.pt")
    for call in load_model, preprocess:
        with pytest.raises(WeightsError, match="there is no file"):
            call(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "wrong", [{"mean": "[1.0, 2.0"}, {"image_size": "32.5"}, {"scale": "[1.0, 1.0]"}, {"mean": "[[1.0]]"}]
)
def test_values_that_mean_nothing_are_refused_with_the_file(tmp_path, state, data, wrong):
    path = write(tmp_path / "w.safetensors", state, **of_resident_data(data, Recipe()).card() | wrong)
    with pytest.raises(WeightsError, match="the preprocessing on the card of .*w.safetensors can't be read"):
        preprocess(path)


def test_a_fine_tuned_nets_card(tmp_path, state):
    values = {"mean": "[1.0, 2.0, 3.0]", "std": "[2.0, 4.0, 8.0]", "image_size": "16"}
    convert = preprocess(write(tmp_path / "w.safetensors", state, **values))
    assert convert.scale.tolist() == [0.5, 0.25, 0.125] and convert.image_size == 16 and not convert.whole


def turned():
    image = Image.fromarray(drawn(20, 40, 3).numpy())
    image.getexif()[ExifTags.Base.Orientation] = 6
    return image


def transparent():
    image = Image.new("LA", (40, 20))
    image.putalpha(Image.fromarray(drawn(20, 40).numpy()))
    return image


@pytest.mark.parametrize(
    "make", [turned, transparent, lambda: Image.fromarray(drawn(20, 40).numpy().astype(np.uint16) << 4)]
)
def test_a_fine_tuned_net_takes_pictures_as_its_training_reads_files(tmp_path, state, make):
    values = {"mean": "[1.0, 2.0, 3.0]", "std": "[2.0, 4.0, 8.0]", "image_size": "16"}
    convert = preprocess(write(tmp_path / "w.safetensors", state, **values))
    image = make()
    image.save(tmp_path / "image.png", exif=image.getexif())
    read = read_image(tmp_path / "image.png", upright=True)
    expected = convert(crop(read, centre_box(*read.size), 16).copy())
    with Image.open(tmp_path / "image.png") as image:
        assert torch.equal(convert(image), expected)
        plain = image.convert("RGB")
    plain.info.clear()
    assert not torch.equal(convert(plain), expected)


# ------------------------------------------------------------------------------------------ cards older than the values


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_released_files_give_their_conversion(path):
    card, convert = read_card(path), preprocess(path)
    mean = np.load(preprocessing.KNOWN_MEANS[card["data_sha256"]])
    assert convert.mean.shape == (32, 32, 3) and torch.equal(convert.mean, torch.from_numpy(mean))
    assert (convert.scale, convert.image_size, convert.whole) == (1 / 255, 32, True)


def test_the_known_mean_is_the_one_that_was_computed():
    (path,) = preprocessing.KNOWN_MEANS.values()
    assert hashlib.sha256(np.load(path)).hexdigest() == KNOWN_SHA256


@pytest.mark.parametrize(
    "changes",
    [
        {"data_sha256": "0" * 64},
        {"record_identity": "0" * 64},
        {"seed": "7"},
        {"options": '{"shortcut": "B"}'},
        {"recipe": '{"nesterov": true}'},
    ],
)
def test_what_is_not_certain_is_not_claimed(changes):
    (path,) = (path for path in RELEASED if path.stem == "cifar_resnet20")
    card = read_card(path)
    assert of_card(card, path) is not None
    assert of_card(card | changes, path) is None


def test_other_normalisations_and_parts_of_the_images_need_the_data():
    (digest,) = preprocessing.KNOWN_MEANS
    assert of_known_data(Run("cifar_resnet20"), digest) is not None
    assert of_known_data(Run("cifar_resnet20", train_images=45_000), digest) is None
    for normalization in NORMALIZATIONS[1:]:
        assert of_known_data(Run("cifar_resnet20", Recipe(normalization=normalization)), digest) is None
    folder = of_known_data(Run("resnet18", Recipe(crop="scale", image_size=64), "imagenet"), "0")
    assert folder.image_size == 64 and json.loads(folder.card()["mean"]) == [123.68, 116.779, 103.939]
