"""A fake of the child that trains: it says and writes what the real one does, in a second, and leaves checkpoints.

`python fake_child.py FOLDER`: with an adapter that was trained once, and `trained.json`, what was said at its end.
"""

import shutil
import sys
import time
from pathlib import Path

import msgspec

from gpu_workers.train.lines import ProofSpec, Report, SpecTaken, Trained, spec_of, to_bytes

STEPS = 12


def main(made: Path) -> None:
    out = sys.stdout.buffer
    outcome = msgspec.json.decode((made / "trained.json").read_bytes(), type=Trained)
    for line in sys.stdin.buffer:
        spec = spec_of(line)
        out.write(to_bytes(SpecTaken()))
        if not isinstance(spec, ProofSpec):
            assert spec.checkpoints is not None
            for step in range(_reached(spec.checkpoints) + 1, STEPS + 1):
                time.sleep(0.02)
                _keep(spec.checkpoints, step)
                out.write(to_bytes(Report(phase="train", step=step, steps=STEPS, loss=1.0 / step)))
                out.flush()
            for file in made.glob("adapter_*"):
                shutil.copyfile(file, spec.out / file.name)
        out.write(to_bytes(outcome))
        out.flush()


def _reached(folder: Path) -> int:
    return int((folder / "step").read_text()) if (folder / "step").is_file() else 0


def _keep(folder: Path, step: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "draft").write_text(str(step))
    (folder / "draft").rename(folder / "step")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
