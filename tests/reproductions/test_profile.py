"""Cluster profiles say what a job asks SLURM for, and are refused with file, key and what is accepted."""

import pytest

from reproductions.harness.launching.profile import FOLDER, Profile, load_profile


def test_the_profiles_of_the_repository_load():
    names = [path.stem for path in FOLDER.glob("*.toml")]
    assert {"example", "testcluster"} <= set(names)
    for name in names:
        load_profile(name)


def test_no_profile_means_the_defaults():
    assert load_profile(None) == Profile()
    assert "slurm_partition" not in Profile().submitit_parameters()


def test_a_profile_in_the_words_of_submitit(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'partition = "gpu"\ngpus = 2\ntime_minutes = 60\nsetup = ["module load cuda"]\n'
        'mail_user = "me@example.org"\n[extra]\nexclude = "node1"\n'
    )
    parameters = load_profile("mine", tmp_path).submitit_parameters()
    assert parameters["slurm_partition"] == "gpu" and parameters["gpus_per_node"] == 2
    assert parameters["timeout_min"] == 60 and parameters["slurm_setup"] == ["module load cuda"]
    assert parameters["slurm_additional_parameters"] == {"exclude": "node1", "mail-user": "me@example.org"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu = 1", "there is no key 'gpu'; the keys are: partition, account, .*gpus"),
        ('gpus = "2"', "gpus must be a whole number, not '2'"),
        ("gpus = true", "gpus must be a whole number"),
        ("gpus = -1", "gpus is -1, too small"),
        ("cpus = 0", "cpus is 0, too small"),
        ("partition = 1", "partition must be a text"),
        ('setup = "module load"', "setup must be a list"),
        ("setup = [1]", "setup must be a list of texts"),
        ("extra = {exclusive = true}", "extra.exclusive must be a text or a whole number"),
        ("time_minutes = 1\nsignal_seconds = 60", "signal_seconds is 60, longer than time_minutes"),
        ("partition =", "can't be read as TOML"),
    ],
)
def test_a_bad_profile_is_refused_with_file_and_key(tmp_path, text, message):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ValueError, match=rf"bad\.toml(.|\n)*{message}"):
        load_profile("bad", tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "../profiles/example", ""])
def test_an_unknown_profile_lists_what_there_is(name):
    with pytest.raises(ValueError, match="there is no cluster profile .* example, testcluster"):
        load_profile(name)
