"""Runs detectors over records in worker processes: the slowest peers take five microseconds a sample."""

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache

import numpy as np

from tools.ec57 import Comparison, compare
from tools.signal_bench import data
from tools.signal_bench.detectors import DETECTORS, OURS
from tools.signal_bench.progress import Progress
from tools.signal_bench.records import Floats, Record

SLOW = ("wfdb gqrs", "wfdb xqrs")
"""Started first, so that no worker is left alone with them at the end."""
WARM_S = 20


@dataclass(frozen=True, slots=True)
class Job:
    """One detector on one record, with noise or without."""

    detector: str
    database: str
    name: str
    noise: str = ""
    snr_db: float = 0.0

    def record(self) -> Record:
        """The samples and their reference."""
        if self.noise:
            return data.load_noisy(self.name, self.noise, self.snr_db)
        return data.load(self.database, self.name)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What one job found: all of the record. `fault` says how a peer broke down; it then found nothing."""

    job: Job
    found_s: Floats
    cpu_s: float
    samples: int
    fault: str = ""

    def comparison(self, start_s: float) -> Comparison:
        """Beat by beat from `start_s` on, flutter left out."""
        record = self.job.record()
        return compare(record.beats_s, self.found_s, start_s, record.flutter_s)


@cache
def warm(name: str) -> None:
    """The first call imports, compiles and allocates: it is not measured."""
    detector = DETECTORS[name]
    record = data.packaged_ecg()
    x = detector.prepare(record)[: round(WARM_S * record.rate_hz)]
    detector.find(x, record.rate_hz)


def run(job: Job) -> Outcome:
    """Does one job in this process."""
    record = job.record()
    detector = DETECTORS[job.detector]
    warm(job.detector)
    x = detector.prepare(record)
    fault = ""
    begin = time.process_time()
    try:
        found = detector.find(x, record.rate_hz)
    except Exception as broken:  # a peer may break down in any way, and then that is its result
        if job.detector == OURS:
            raise
        found, fault = np.empty(0), f"{type(broken).__name__}: {broken}"
    cpu_s = time.process_time() - begin
    return Outcome(job, np.sort(found) / record.rate_hz, cpu_s, len(x), fault)


def workers() -> ProcessPoolExecutor:
    """A process for each core that there is."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context)


def run_all(jobs: Sequence[Job], progress: Progress, pool: Executor) -> list[Outcome]:
    """Does all, in order of `jobs`."""
    order = sorted(range(len(jobs)), key=lambda k: (jobs[k].detector not in SLOW, k))
    outcomes: dict[int, Outcome] = {}
    futures = {pool.submit(run, jobs[k]): k for k in order}
    for future in as_completed(futures):
        outcomes[futures[future]] = future.result()
        progress.step()
    return [outcomes[k] for k in range(len(jobs))]
