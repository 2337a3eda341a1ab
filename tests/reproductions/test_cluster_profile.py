"""Cluster profiles: the requests to SLURM that they make, and refusals that name file, key and accepted values."""

import json
import sys

import pytest

from reproductions.harness.launching.slurm.cluster_profile import FOLDER, ClusterProfile, load_cluster_profile


def load(folder, text):
    """Load a profile with this text."""
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return load_cluster_profile("mine", folder)


def test_the_profiles_of_the_repository_load():
    names = [path.stem for path in FOLDER.glob("*.toml")]
    assert {"example", "testcluster"} <= set(names)
    for name in names:
        load_cluster_profile(name)


def test_no_profile_means_the_defaults():
    assert load_cluster_profile(None) == ClusterProfile()
    assert "slurm_partition" not in ClusterProfile().submitit_parameters()


def test_a_profile_in_the_words_of_submitit(tmp_path):
    text = 'partition = "gpu"\ngpus = 2\ntime_minutes = 60\nsetup = ["module load cuda"]\n'
    text += 'mail_user = "me@example.org"\n[extra]\nexclude = "node1"\n'
    parameters = load(tmp_path, text).submitit_parameters()
    assert parameters["slurm_partition"] == "gpu" and parameters["gpus_per_node"] == 2
    assert parameters["timeout_min"] == 60 and parameters["slurm_setup"] == ["module load cuda"]
    assert parameters["slurm_additional_parameters"] == {"exclude": "node1", "mail-user": "me@example.org"}


def test_a_container_by_its_python_and_arguments_of_srun(tmp_path):
    profile = load(tmp_path, 'python = "/opt/my python"\nsrun_args = ["--container-image=/a b.sqsh"]')
    assert profile.python_command == ["/opt/my python"]
    assert profile.submitit_parameters()["slurm_srun_args"] == ["--container-image=/a b.sqsh"]
    command = ["apptainer", "exec", "--nv", "/a b.sif", "python3"]
    assert load(tmp_path, f"python = {json.dumps(command)}").python_command == command
    assert ClusterProfile().python_command == [sys.executable]


def test_gpus_cores_and_memory_are_for_each_process_of_a_run(tmp_path):
    profile = load(tmp_path, "nodes = 2\ntasks_per_node = 4\ngpus = 1\ncpus = 8\nmemory_gb = 10\n")
    parameters = profile.submitit_parameters()
    assert profile.processes == 8 and ClusterProfile().processes == 1
    assert parameters["nodes"] == 2 and parameters["tasks_per_node"] == 4
    assert parameters["gpus_per_node"] == 4 and parameters["cpus_per_task"] == 8 and parameters["mem_gb"] == 40
    assert "gpus_per_node" not in ClusterProfile(gpus=0).submitit_parameters()


@pytest.mark.parametrize(
    "text",
    [
        'constraint = "(a100&ib)|[rack1*2|rack2]"',
        'mail_user = "me+jobs@example.org"\nmail_type = "END,TIME_LIMIT_80"',
        'partition = "gpu,gpu-long"\naccount = "group/project_1"\nqos = "normal"',
        '[extra]\nexclude = "node[13-17]"\ngres = "gpu:a100:1"\nnice = 100\ncomment = "it\'s $HOME; two words"',
    ],
)
def test_what_clusters_need_is_accepted(tmp_path, text):
    load(tmp_path, text)


@pytest.mark.parametrize("key", ["partition", "account", "qos", "constraint", "mail_user", "mail_type"])
@pytest.mark.parametrize(
    "value", ["a b", "a\n#SBATCH --wrap=x", "a;b", "$(id)", "`id`", "'", '"', "a>b", "-x", "", "a#"]
)
def test_a_name_that_could_be_more_than_one_word_is_refused(tmp_path, key, value):
    with pytest.raises(ValueError, match=rf"mine\.toml: {key} is .* must be one word"):
        load(tmp_path, f"{key} = {json.dumps(value)}")


@pytest.mark.parametrize(
    "key",
    [
        *("array", "output", "error", "job-name", "signal", "open-mode", "wckey", "requeue", "no-requeue", "chdir"),
        *("partition", "outp", "time", "mem-per-cpu", "nodes", "ntasks", "cpus-per-task", "gpus", "mail-type"),
        *("export", "clusters"),
    ],
)
def test_options_that_the_profile_or_the_jobs_set_are_not_for_extra(tmp_path, key):
    with pytest.raises(ValueError, match=rf"mine\.toml: extra.{key} is not for \[extra\]"):
        load(tmp_path, f'[extra]\n{key} = "x"')


@pytest.mark.parametrize("key", ["--exclude", "Exclude", "job_name", "nice=1", "a b", "a\nb", "", "größe", "exclude "])
def test_what_is_no_option_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match=r"mine\.toml: extra\.'.*is not an option of sbatch"):
        load(tmp_path, f'[extra]\n{json.dumps(key, ensure_ascii=False)} = "x"')


@pytest.mark.parametrize("value", ["a\nb", "a\r", "a\u2028b", "\u0007"])
def test_a_value_of_more_than_one_line_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"mine\.toml: extra\.comment is .* must be one line"):
        load(tmp_path, f"[extra]\ncomment = {json.dumps(value)}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu = 1", "there is no key 'gpu'; available keys: partition, account, .*gpus"),
        ('gpus = "2"', "gpus must be a whole number, not '2'"),
        ("gpus = true", "gpus must be a whole number"),
        ("gpus = -1", "gpus is -1, too small"),
        ("cpus = 0", "cpus is 0, too small"),
        ("nodes = 0", "nodes is 0, too small"),
        ("tasks_per_node = -1", "tasks_per_node is -1, too small"),
        ("partition = 1", "partition must be a text"),
        ('setup = "module load"', "setup must be a list"),
        ("setup = [1]", "setup must be a list of texts"),
        ("python = 3", "python must be a text or a list, not 3"),
        ("python = []", "python must be a text, or a list of a command's words"),
        ('python = ["a", 1]', "python must be a text, or a list of a command's words"),
        ('python = "a\\nb"', "python must be a text, or a list of a command's words"),
        ('python = ["a", ""]', "python must be a text, or a list of a command's words"),
        ('srun_args = "--x"', "srun_args must be a list, not '--x'"),
        ('srun_args = ["--container-image", "x.sqsh"]', "texts that begin with -, each with its value behind ="),
        ('srun_args = ["--x=a\\nb"]', "srun_args must be a list of texts"),
        ("srun_args = [1]", "srun_args must be a list of texts"),
        ("extra = {exclusive = true}", "extra.exclusive must be a text or a whole number"),
        ("time_minutes = 1\nsignal_seconds = 60", "signal_seconds is 60, longer than time_minutes"),
        ("partition =", "can't be read as TOML"),
    ],
)
def test_a_bad_profile_is_refused_with_file_and_key(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"mine\.toml(.|\n)*{message}"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    "name", ["nowhere", "../profiles/example", "example/../example", str(FOLDER / "example"), "example.toml", ""]
)
def test_an_unknown_profile_or_one_outside_of_the_folder_lists_what_there_is(name):
    with pytest.raises(ValueError, match="there is no cluster profile .* example, testcluster"):
        load_cluster_profile(name)
