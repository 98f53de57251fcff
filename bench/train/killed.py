"""A run that is killed at any moment and taken up from its checkpoint ends in the bytes of one that never was."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from random import Random

import msgspec

from bench.part import Found, Missing, Part
from bench.train.ran import TRAINS
from bench.train.scene import CHECKOUT, Scene, child
from gpu_workers.train.lines import RunSpec, to_bytes
from processors.training.settings import TrainSettings

KILLS, STEPS = 20, 16
QUICK = TrainSettings(rank=4, alpha=8, steps=STEPS, batch=4, warmup=1, evaluation_rows=0)
"""With dropout: what a random generator has drawn is part of what is taken up."""


def run(scene: Scene, _: Collection[str]) -> Found:
    whole = scene.spec("uninterrupted", "lora", QUICK, scene.rows, str(scene.tiny))
    truth = child("ran", to_bytes(whole).decode(), scene.threads)["sha256"]
    dice, equal, taken_up = Random(16), 0, 0
    for number in range(KILLS):
        checkpoints = scene.root / f"checkpoints-{number}"
        checkpoints.mkdir()
        spec = scene.spec(f"killed-{number}", "lora", QUICK, scene.rows, str(scene.tiny))
        spec = msgspec.structs.replace(spec, checkpoints=checkpoints, checkpoint_seconds=0.0)
        kill(spec, at=dice.randrange(1, STEPS), after=dice.random() / 50, threads=scene.threads)
        if number == 0 and not any(checkpoints.iterdir()):
            raise Missing("a run leaves no checkpoint")
        said = child("ran", to_bytes(spec).decode(), scene.threads)
        taken_up += said["first_step"] > 1
        equal += said["sha256"] == truth
    return Found({}, {}, {"resumed": float(equal), "resumed: from a checkpoint": float(taken_up)})


def kill(spec: RunSpec, at: int, after: float, threads: int) -> None:
    """So many seconds after it says that this step is done."""
    line = [sys.executable, "-m", "bench.train.ran", json.dumps(to_bytes(spec).decode())]
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        line, cwd=CHECKOUT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        for said in process.stdout:
            report = json.loads(said)
            if report.get("phase") == TRAINS and report["step"] >= at:
                time.sleep(after)
                break
        process.kill()
    for left in Path(spec.out).iterdir():
        left.unlink()


PARTS = [Part("resumed", ("resumed",), run)]
