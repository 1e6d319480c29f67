"""The examples of deployment are well formed, and every command line of ours in them is one that geo4d takes."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from geo4d.apps import cli

yaml = pytest.importorskip("yaml")

FOLDER = Path(__file__).parents[1] / "examples" / "deploy"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
CLAIM, JOB = yaml.safe_load_all((FOLDER / "rayjob.yaml").read_text("utf-8"))


def words_of(service: dict[str, Any]) -> list[list[str]]:
    """Command lines of a container: its entry point and command, or those of a shell that it starts."""
    entry, command = service.get("entrypoint", []), service.get("command", [])
    if entry == ["bash", "-c"]:
        return [shlex.split(line.removeprefix("exec ")) for line in command[0].splitlines()]
    return [entry + command]


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(where, words) of every command line of geo4d in the folder."""
    for name, service in COMPOSE["services"].items():
        for words in words_of(service):
            yield f"compose {name}", words
    yield "rayjob", shlex.split(JOB["spec"]["entrypoint"])
    script = (FOLDER / "train_nodes.sbatch").read_text("utf-8").replace("\\\n", " ")
    for name, value in re.findall(r"^(\w+)=\$\{\w+:-([^}]*)\}", script, re.M):
        script = script.replace(f"${name}", value)
    yield "sbatch", ["geo4d", *shlex.split(re.search(r"-m -- geo4d (.*)", script)[1])]
    text = (FOLDER / "train_on_ray.py").read_text("utf-8")
    yield "train on ray", ["geo4d", "train", *shlex.split(re.search(r"train_on_ray.py .*? -- (.*)", text)[1])]


OURS = [(where, words) for where, words in command_lines() if words[0] == "geo4d"]


def test_there_are_commands_of_ours_in_every_file() -> None:
    assert [where for where, _ in OURS] == [
        "compose service",
        "compose batch",
        "rayjob",
        "sbatch",
        "train on ray",
    ]


@pytest.mark.parametrize(("where", "words"), OURS, ids=[where for where, _ in OURS])
def test_commands_are_understood(where, words, monkeypatch) -> None:
    module = import_module(f"geo4d.apps.commands.{words[1]}")

    def run(options: object) -> int:
        return 0

    run.__annotations__ = module.run.__annotations__
    monkeypatch.setattr(module, "run", run)
    assert cli.main(words[1:]) == 0


def test_commands_of_ray_are_understood() -> None:
    """By the parsers of Ray itself; nothing is started."""
    pytest.importorskip("ray")
    from ray.scripts.scripts import cli as ray_cli

    lines = [words for service in COMPOSE["services"].values() for words in words_of(service)]
    found = [words[1:] for words in lines if words and words[0] == "ray"]
    assert [words[0] for words in found] == ["start"] * 3
    for name, *words in found:
        context = ray_cli.commands[name].make_context(name, words)
        assert context.params["head"] or context.params["address"] == "ray-head:6379"


def test_what_is_mounted_named_and_asked_for_is_there() -> None:
    volumes, services = set(COMPOSE["volumes"]), COMPOSE["services"]
    for service in services.values():
        for volume in service.get("volumes", []):
            assert volume.startswith("./") or volume.split(":")[0] in volumes
        assert set(service.get("depends_on", {})) <= set(services)
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert service["image"] in ("geo4d:cpu", "minio/minio")
    assert services["service"]["ports"] == ["127.0.0.1:8090:8090"]
    assert not any("ports" in service for name, service in services.items() if name != "service")
    cluster = JOB["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == "geo4d:cpu"
        assert [mount["name"] for mount in container["volumeMounts"]] == [v["name"] for v in pod["volumes"]]
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    words = shlex.split(JOB["spec"]["entrypoint"])
    cpus, gpus = words[words.index("--worker-cpus") + 1], words[words.index("--worker-gpus") + 1]
    assert int(words[words.index("--workers") + 1]) <= groups[1]["maxReplicas"]
    requests = groups[1]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert (requests["cpu"], requests["nvidia.com/gpu"]) == (cpus, gpus)


def test_the_shell_script_is_one() -> None:
    subprocess.run(["bash", "-n", str(FOLDER / "train_nodes.sbatch")], check=True)


def test_the_script_for_ray_train_explains_itself() -> None:
    command = [sys.executable, str(FOLDER / "train_on_ray.py"), "--help"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "--workers" in done.stdout
