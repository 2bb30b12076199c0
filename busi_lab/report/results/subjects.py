"""What the clinical part judges: a run, or an experiment over its folds, with its images and its calibration."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from busi_lab.report.results.cases import Cases, pool, read_test_cases, read_validation_cases
from busi_lab.report.results.statistics import fit_temperature, scale_temperature
from busi_lab.report.results.uncertainty import Floats
from busi_lab.run_directory import Run


@dataclass(frozen=True)
class Subject:
    """What is judged: one run, or the runs of an experiment over its folds and seeds.

    ``repeats`` has the runs of each pair of seeds, a run for each fold.
    """

    label: str
    repeats: tuple[tuple[Run, ...], ...]

    @cached_property
    def parts(self) -> list[Cases]:
        """The test images of each run; none where a run has no readable predictions."""
        found = [read_test_cases(run) for runs in self.repeats for run in runs]
        known = [part for part in found if part is not None]
        return known if len(known) == len(found) else []

    @cached_property
    def cases(self) -> Cases | None:
        """The test images of the first pair of seeds, folds together; None without :attr:`parts`.

        Averaged over seeds, predictions would be those of an ensemble.
        """
        return self._pool(self.parts[: len(self.repeats[0])]) if self.parts else None

    @cached_property
    def calibration(self) -> "Calibration | None":
        """Probabilities before and after scaling, each fold with the temperature of its own validation images.

        Of the first pair of seeds alone: averaged over seeds, they would be those of an ensemble, which is less
        confident than its members.
        """
        runs = self.repeats[0]
        cases = self._pool([read_test_cases(run) for run in runs])
        if cases is None or cases.probabilities is None:
            return None
        temperatures, scaled = [], []
        for run in runs:
            test, validation = read_test_cases(run), read_validation_cases(run)
            if test is None or test.probabilities is None or validation is None or validation.probabilities is None:
                return Calibration(cases, cases.probabilities, (), None)
            temperatures.append(fit_temperature(validation.probabilities, validation.actual))
            scaled.append(replace(test, probabilities=scale_temperature(test.probabilities, temperatures[-1])))
        return Calibration(cases, cases.probabilities, tuple(temperatures), pool(scaled).probabilities)

    @staticmethod
    def _pool(parts: Sequence[Cases | None]) -> Cases | None:
        known = [part for part in parts if part is not None]
        return pool(known) if known and len(known) == len(parts) else None


@dataclass(frozen=True)
class Calibration:
    """Class probabilities on the test images ``[N, C]`` before and after temperature scaling.

    ``temperatures`` has one for each run; without validation images to fit on it is empty and ``scaled`` None.
    """

    cases: Cases
    probabilities: Floats
    temperatures: tuple[float, ...]
    scaled: Floats | None
