"""Training on one's own images equals a plain loop, also after interruptions, and begins with weights of all kinds."""

import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from image_folder import make_dataset
from torch import nn

from resnet import checkpoint, finetuning
from resnet.checkpoint import digest_of_weights
from resnet.data.colour import MEAN, STD
from resnet.data.crops import centre_box, crop, read_image
from resnet.data.folder import FolderData
from resnet.finetuning import BEST, LAST, FinetuningError, Settings, from_scratch, from_weights, load_classifier, train
from resnet.models import create_model
from resnet.released import RELEASED, read_card
from resnet.weights import Architecture, WeightsError, read_weights

CPU = torch.device("cpu")
NET = Architecture("cifar_resnet8")
SETTINGS = Settings(batch_size=4, learning_rate=1e-3, image_size=16, seed=5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """10 training and 4 validation images of 2 classes."""
    return make_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """Three epochs, and the folder that they left."""
    folder = tmp_path_factory.mktemp("trained")
    return train(from_scratch(NET, 2, SETTINGS.seed), dataset, SETTINGS, 3, folder, CPU), folder


def test_training_is_that_of_a_plain_loop(dataset, trained):
    done, folder = trained
    model = from_scratch(NET, 2, SETTINGS.seed).model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = FolderData(dataset, CPU, 0).batches(SETTINGS.seed, SETTINGS.recipe(), [slice(0, 4)])
    for epoch in range(3):
        model.train()
        losses, right = [], 0
        for step in range(3 * epoch, 3 * epoch + 3):  # 10 images are two batches and a half
            batches.load(step)
            ((images, labels),) = batches.take(4)
            logits = model(images.contiguous())
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            right += (logits.argmax(1) == labels).sum().item()
        entry = done.history[epoch]
        assert entry["epoch"] == epoch + 1 and entry["training_loss"] == pytest.approx(sum(losses) / 3, rel=1e-4)
        assert entry["training_accuracy"] == pytest.approx(100 * right / 12)
    for name, value in read_weights(folder / LAST).items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_validation_looks_at_the_centre_of_each_image(dataset, trained):
    done, folder = trained
    classifier = load_classifier(folder / LAST, CPU)
    confusion, losses = [[0, 0], [0, 0]], []
    for index, label in enumerate(dataset.test.labels.tolist()):
        image = read_image(dataset.path(dataset.test, index))
        pixels = torch.from_numpy(crop(image, centre_box(*image.size), 16).copy())[None]
        chances = classifier.probabilities(pixels)[0]
        assert chances.sum().item() == pytest.approx(1)
        confusion[label][chances.argmax().item()] += 1
        losses.append(-chances[label].log().item())
    assert done.confusion == confusion
    last = done.history[-1]
    assert last["validation_accuracy"] == 100 * (confusion[0][0] + confusion[1][1]) / 4
    assert last["validation_loss"] == pytest.approx(sum(losses) / 4, rel=1e-4)


def test_pixels_are_normalised_as_those_that_the_weights_were_trained_with(dataset, trained, tmp_path):
    of_cifar = (125.307, 122.95, 113.865), (255.0,) * 3
    released = str(RELEASED / "cifar_resnet20.safetensors")
    found = from_weights(released, ("a", "b"), 0)
    assert (found.mean, found.std) == of_cifar
    settings, seen = replace(SETTINGS, image_size=32), []
    found.model.register_forward_pre_hook(lambda model, inputs: seen.append(inputs[0]))
    done = train(found, dataset, settings, 1, tmp_path, CPU)
    classifier, again = load_classifier(tmp_path / LAST, CPU), from_weights(str(tmp_path / LAST), ("a", "b"), 0)
    assert (classifier.mean, classifier.std) == of_cifar == (again.mean, again.std)
    images = [read_image(dataset.path(dataset.test, index)) for index in range(4)]
    pixels = np.stack([crop(image, centre_box(*image.size), 32) for image in images])
    chances = classifier.probabilities(torch.from_numpy(pixels))[range(4), dataset.test.labels.tolist()]
    assert done.history[0]["validation_loss"] == pytest.approx(-chances.log().mean().item(), rel=1e-4)
    assert max(images.abs().max() for images in seen) < 0.6  # in training, too
    imagenet = replace(from_weights(released, ("a", "b"), 0), mean=MEAN, std=STD)
    with pytest.raises(FinetuningError, match="different normalisation"):
        train(imagenet, dataset, settings, 1, tmp_path, CPU)
    known = from_weights(str(trained[1] / LAST), ("a", "b"), 0)
    assert (known.mean, known.std) == (MEAN, STD)


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(dataset, trained, tmp_path):
    def stop(step, steps):
        stop.steps += 1
        if stop.steps == 5:  # in the second epoch
            raise KeyboardInterrupt

    stop.steps = 0
    with pytest.raises(KeyboardInterrupt):
        train(from_scratch(NET, 2, SETTINGS.seed), dataset, SETTINGS, 3, tmp_path, CPU, on_step=stop)
    assert len(checkpoint.load_latest(tmp_path)["history"]) == 1
    done = train(from_scratch(NET, 2, SETTINGS.seed), dataset, SETTINGS, 2, tmp_path, CPU, workers=1)
    assert len(done.history) == 2
    done = train(from_scratch(NET, 2, SETTINGS.seed), dataset, SETTINGS, 3, tmp_path, CPU)  # more epochs than before
    whole, folder = trained
    assert done == whole
    for name in (LAST, BEST):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    again = train(from_scratch(NET, 2, SETTINGS.seed), dataset, SETTINGS, 3, tmp_path, CPU)
    assert again == whole


def test_a_checkpoint_is_loaded_beside_the_device_and_freed_before_the_first_step(dataset, tmp_path, monkeypatch):
    train(from_scratch(NET, 2, SETTINGS.seed), dataset, SETTINGS, 1, tmp_path, CPU)
    load, kept, alive = checkpoint.load_latest, [], []

    def note(*_):
        alive.append(kept[1]())

    def noted(folder, device="cpu"):
        state = load(folder, device)
        kept.extend([str(device), weakref.ref(state["model"]["fc.weight"])])
        return state

    monkeypatch.setattr(checkpoint, "load_latest", noted)
    train(from_scratch(NET, 2, SETTINGS.seed), dataset, SETTINGS, 2, tmp_path, torch.device("cpu", 0), on_step=note)
    assert kept[0] == "cpu" and alive == [None] * 3


@pytest.mark.gpu
def test_on_a_gpu_a_resumed_optimizer_counts_steps_on_the_cpu_like_a_new_one(dataset, tmp_path, monkeypatch):
    made = []

    class Kept(torch.optim.Adam):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(torch.optim, "Adam", Kept)
    for epochs in (1, 2):
        train(from_scratch(NET, 2, SETTINGS.seed), dataset, SETTINGS, epochs, tmp_path, torch.device("cuda"))
    assert len(made) == 2
    for values in (values for optimizer in made for values in optimizer.state.values()):
        assert values["step"].is_cpu and values["exp_avg"].is_cuda


def test_another_training_in_the_same_folder_is_refused(dataset, trained):
    folder = trained[1]
    for beginning, settings, said in (
        (from_scratch(NET, 2, 5), replace(SETTINGS, learning_rate=0.1), r"settings \(learning_rate .*, here 0.1\)"),
        (from_scratch(NET, 2, 5), replace(SETTINGS, precision="bf16"), r"settings \(precision fp32, here bf16\)"),
        (from_scratch(NET, 2, 6), SETTINGS, "different initial weights"),
        (from_scratch(Architecture("cifar_resnet14"), 2, 5), SETTINGS, "different model, initial weights"),
    ):
        with pytest.raises(FinetuningError, match=said):
            train(beginning, dataset, settings, 4, folder, CPU)


def test_the_weights_say_what_they_are(dataset, trained):
    done, folder = trained
    card = read_card(folder / BEST)
    assert (card["model"], json.loads(card["options"])) == ("cifar_resnet8", {"num_classes": 2})
    assert (json.loads(card["classes"]), card["image_size"]) == (["a", "b"], "16")
    assert (json.loads(card["mean"]), json.loads(card["std"])) == (list(MEAN), list(STD))
    accuracies = [entry["validation_accuracy"] for entry in done.history]
    assert int(card["epoch"]) == 1 + accuracies.index(max(accuracies)) == done.best["epoch"]
    assert float(card["validation_accuracy"]) == max(accuracies)
    assert card["weights_sha256"] == digest_of_weights(load_classifier(folder / BEST, CPU).model.state_dict())
    classifier = load_classifier(folder / BEST, CPU)
    assert (classifier.classes, classifier.image_size, classifier.mean) == (("a", "b"), 16, MEAN)


def test_a_loss_that_is_not_finite_ends_the_training(dataset, tmp_path):
    settings = replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(FinetuningError, match="lower --learning-rate"):
        train(from_scratch(NET, 2, 5), dataset, settings, 5, tmp_path, CPU)


def test_an_image_that_is_gone_ends_the_training(tmp_path):
    dataset = make_dataset(tmp_path)
    dataset.path(dataset.train, 0).unlink()
    with pytest.raises(FinetuningError, match="can't be read.*must not change"):
        train(from_scratch(NET, 2, 5), dataset, SETTINGS, 1, tmp_path, CPU)


# ------------------------------------------------------------------------------------------------ weights to begin with


def same_but_for_the_last(model, state) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[name], value) for name, value in state.items() if not name.startswith("fc."))


def test_from_weights_of_this_command(trained):
    path = str(trained[1] / LAST)
    state = read_weights(trained[1] / LAST)
    same = from_weights(path, ("a", "b"), 1)
    assert "outputs needed" in same.said and torch.equal(same.model.fc.weight, state["fc.weight"])
    for classes, said in ((("a", "c"), "for other classes"), (("a", "b", "c"), "3 outputs instead of 2")):
        other = from_weights(path, classes, 1)
        assert said in other.said and same_but_for_the_last(other.model, state)
        fresh = from_scratch(NET, len(classes), 1).model
        assert torch.equal(other.model.fc.weight, fresh.fc.weight) and other.architecture == NET
    with pytest.raises(WeightsError, match="according to its card, .* holds cifar_resnet8.*, not resnet18"):
        from_weights(path, ("a", "b"), 1, model="resnet18")


@pytest.mark.parametrize("kind", ["own", "pytorch", "torchvision"])
def test_from_weights_of_other_kinds(tmp_path, monkeypatch, kind):
    source = create_model("resnet18", variant="b", num_classes=1000)
    nn.init.normal_(source.bn1.running_mean)
    path = tmp_path / "resnet18-01234567.pth"
    if kind == "own":
        path.write_bytes(checkpoint.pack(source.state_dict()))
    else:
        torch.save(source.state_dict(), path)
    monkeypatch.setattr(finetuning, "torchvision_file", lambda name: path)
    name = "torchvision:resnet18" if kind == "torchvision" else str(path)
    found = from_weights(name, ("a", "b", "c"), 0)
    assert found.architecture.model == "resnet18" and found.model.fc.out_features == 3
    assert same_but_for_the_last(found.model, source.state_dict()) and "3 outputs instead of 1,000" in found.said


def test_from_weights_of_a_small_net_that_is_named(tmp_path):
    source = create_model("cifar_resnet8").state_dict()
    torch.save(source, tmp_path / "net.pt")
    found = from_weights(str(tmp_path / "net.pt"), ("a", "b"), 0, model="cifar_resnet8")
    assert same_but_for_the_last(found.model, source)
    for classes in (("a", "b"), tuple("abcdefghij")):  # with a new last layer, and with the file's own
        with pytest.raises(WeightsError, match="does not hold the weights of cifar_resnet14"):
            from_weights(str(tmp_path / "net.pt"), classes, 0, model="cifar_resnet14")


def test_every_weight_of_a_file_is_used(tmp_path):
    biased = create_model("cifar_resnet8", conv_bias=True).state_dict()
    torch.save(biased, tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="conv1.bias"):
        from_weights(str(tmp_path / "net.pt"), tuple("abcdefghij"), 0, model="cifar_resnet8")
    old = {k: v for k, v in create_model("cifar_resnet8").state_dict().items() if "num_batches_tracked" not in k}
    torch.save(old, tmp_path / "old.pt")  # of before BN counted its batches
    found = from_weights(str(tmp_path / "old.pt"), tuple("abcdefghij"), 0, model="cifar_resnet8")
    assert all(torch.equal(found.model.state_dict()[name], value) for name, value in old.items())


def test_from_a_run_on_images_of_32_pixels(tmp_path):
    source = create_model("resnet18", small_stem=True, num_classes=10).state_dict()
    (tmp_path / "0123456789abcdef.pt").write_bytes(checkpoint.pack(source))
    found = from_weights(str(tmp_path / "0123456789abcdef.pt"), ("a", "b"), 0)
    assert found.architecture.options["small_stem"] and same_but_for_the_last(found.model, source)


def test_networks_and_files_that_will_not_do(tmp_path, trained):
    with pytest.raises(ValueError, match="only grey images"):
        from_scratch(Architecture("mnist_residual"), 2, 0)
    with pytest.raises(ValueError, match="no model 'resnet51'"):
        from_scratch(Architecture("resnet51"), 2, 0)
    with pytest.raises(WeightsError, match="no file"):
        from_weights(str(tmp_path / "missing.pt"), ("a", "b"), 0)
    with pytest.raises(WeightsError, match="there is no file"):
        load_classifier(tmp_path / "missing.safetensors", CPU)
    torch.save(create_model("cifar_resnet8").state_dict(), tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="lacks classes, image_size"):
        load_classifier(tmp_path / "net.pt", CPU)
    content = (trained[1] / LAST).read_bytes()
    (tmp_path / "damaged.safetensors").write_bytes(content[:-4] + b"\x00\x00\x00\x7f")
    with pytest.raises(WeightsError, match="damaged or was changed"):
        load_classifier(tmp_path / "damaged.safetensors", CPU)
    for changes in ({"crop": "pad"}, {"precision": "fp16"}, {"batch_size": 0}):
        with pytest.raises(ValueError):
            replace(SETTINGS, **changes).recipe()
