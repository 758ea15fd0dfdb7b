"""Commands in the documents exist, with every flag that is given them."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from inflate.cli.app import app

DOCS = Path(__file__).resolve().parent.parent / "docs"
CHECKED = ("evaluation.md", "scaling.md")


def blocks_of(text: str, *kinds: str) -> list[str]:
    """Fenced blocks of these kinds."""
    return re.findall(rf"```(?:{'|'.join(kinds)})\n(.*?)```", text, re.DOTALL)


def words_in(tree: Any) -> list[str]:
    """Every text in a YAML tree."""
    if isinstance(tree, dict | list):
        return [word for one in (tree.values() if isinstance(tree, dict) else tree) for word in words_in(one)]
    return [tree] if isinstance(tree, str) else []


def commands_in(text: str) -> list[list[str]]:
    """Words after ``inflate`` of every command, in code style and in shell blocks, line ends joined."""
    blocks = "\n".join(blocks_of(text, "sh", "bash")).replace("\\\n", " ")
    blocks += "\n".join([line for block in blocks_of(text, "yaml") for line in words_in(yaml.safe_load(block))])
    lines = re.findall(r"(?:^|\s)(?:-m )?inflate ([a-z][^\n|&;]*)", blocks)
    return [shlex.split(line, comments=True) for line in [*lines, *re.findall(r"`inflate ([a-z]\w*[^`]*)`", text)]]


def unknown(words: list[str]) -> list[str]:
    """What of a command's words no command has."""
    command: Any = typer.main.get_command(app)
    while getattr(command, "commands", None) and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return words[:1]
        command, words = command.commands[words[0]], words[1:]
    options = {option for parameter in command.params for option in parameter.opts}
    return [word for word in words if word.startswith("-") and word.partition("=")[0] not in options]


@pytest.mark.parametrize("document", CHECKED)
def test_commands_in_documents_exist(document: str) -> None:
    found = commands_in((DOCS / document).read_text(encoding="utf-8"))
    assert len(found) > 3
    assert not [(words, bad) for words in found if (bad := unknown(words))]


def test_the_check_itself() -> None:
    text = "`inflate finetune --modle x` and\n```sh\ninflate evaluate fvd made \\\n  --rael x\ninflate nothing\n```"
    assert [unknown(words) for words in commands_in(text)] == [["--rael"], ["nothing"], ["--modle"]]


SCALING = (DOCS / "scaling.md").read_text(encoding="utf-8")


def launched(program: str) -> list[list[str]]:
    """What stands between ``program`` and the module that it starts, for each time it is started."""
    shell = "\n".join(blocks_of(SCALING, "sh", "bash")).replace("\\\n", " ")
    yaml_lines = [line for block in blocks_of(SCALING, "yaml") for line in words_in(yaml.safe_load(block))]
    texts = [shell, *yaml_lines, *re.findall(r"`([^`\n]*)`", SCALING)]
    return [shlex.split(found) for text in texts for found in re.findall(rf"\b{program} (.*?)-m inflate", text)]


def test_flags_of_torchrun_exist() -> None:
    from torch.distributed.run import get_args_parser

    starts = launched("torchrun")
    assert len(starts) >= 4
    for words in starts:
        told, rest = get_args_parser().parse_known_args([*words, "-m", "inflate"])
        assert not [word for word in rest if word.startswith("-")], words
        assert told.training_script == "inflate" and told.module


def test_flags_of_accelerate_exist() -> None:
    from accelerate.commands.launch import launch_command_parser

    starts = launched("accelerate launch")
    assert starts
    for words in starts:
        told = launch_command_parser().parse_args([*words, "-m", "inflate"])
        assert told.multi_gpu and told.num_processes == 8


def test_shell_blocks_are_shell() -> None:
    for block in blocks_of(SCALING, "bash"):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_slurm_script_asks_for_one_launcher_a_machine() -> None:
    [script] = [block for block in blocks_of(SCALING, "bash") if "#SBATCH" in block]
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", script, re.MULTILINE))
    assert asked["ntasks-per-node"] == "1" and asked["gpus-per-node"] == "8" and "--nproc_per_node 8" in script
    assert asked["signal"].startswith("TERM@") and "requeue" in asked
    assert script.startswith("#!/bin/bash\n#SBATCH"), "Slurm reads no option after the first command"


def test_the_kubernetes_job_is_one() -> None:
    [job] = [yaml.safe_load(block) for block in blocks_of(SCALING, "yaml")]
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    [container] = worker["template"]["spec"]["containers"]
    assert container["name"] == "pytorch", "the name that the operator looks for"
    assert str(container["resources"]["limits"]["nvidia.com/gpu"]) == job["spec"]["nprocPerNode"]
    policy = job["spec"]["elasticPolicy"]
    assert policy["minReplicas"] <= worker["replicas"] <= policy["maxReplicas"]
    volumes = {volume["name"] for volume in worker["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
