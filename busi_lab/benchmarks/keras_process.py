"""The paper's own stack, tf.keras with ImageDataGenerator, in an environment and a process of its own."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from busi_lab.benchmarks.phantoms import cache_folder
from busi_lab.benchmarks.settings import Settings
from busi_lab.errors import UserError

_PACKAGES = ("tensorflow-cpu>=2.20", "pillow", "scipy")
_PROGRAM = Path(__file__).with_name("keras_program.py")


class Keras:
    """A process that trains the published MobileNet for a round whenever it is asked.

    Args:
        settings: threads, images and image size of a round.
        root: images, a folder for each class.
    """

    def __init__(self, settings: Settings, root: Path) -> None:
        size = settings.image_size or 224
        self._folder = tempfile.TemporaryDirectory()
        for path in root.glob("*/*.png"):
            if "_mask" not in path.stem:
                link = Path(self._folder.name) / path.parent.name / path.name
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(path)
        arguments = [self._folder.name, str(size), str(settings.round_images), str(settings.threads)]
        self._process = subprocess.Popen(
            [str(_python()), str(_PROGRAM), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> "Keras":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def round(self, batch_size: int) -> float:
        """Images a second of a round.

        Raises:
            UserError: the process has died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{batch_size}\n")
            self._process.stdin.flush()
            return float(json.loads(self._process.stdout.readline()))
        except (OSError, ValueError):
            raise UserError(f"--keras: {_PROGRAM.name} has ended; try it by hand: {_python()} {_PROGRAM}") from None


def _python() -> Path:
    """The interpreter of an environment with TensorFlow, made in the cache where it is missing.

    Raises:
        UserError: it cannot be made.
    """
    environment = cache_folder() / "keras"
    python, done = environment / "bin/python", environment / "done"
    if done.exists():
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True, capture_output=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *_PACKAGES], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
        raise UserError(f"--keras: TensorFlow cannot be installed ({said[-1][:160] if said else error})") from None
    done.touch()
    return python
