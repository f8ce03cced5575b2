"""The meter that `bench` and the scripts of benchmarks/ share."""

import time

import torch

from csrecon.evaluation import meter

CPU = torch.device("cpu")


def test_the_fastest_of_several_runs():
    waits = iter([0.0, 0.05, 0.01, 0.03])

    def run():
        time.sleep(next(waits))
        return torch.ones(3, 1, 4, 4)

    found = meter.best(run, CPU, 3)
    assert 0.01 <= found.seconds < 0.03
    assert found.image.shape == (1, 1, 4, 4)
    assert next(waits, None) is None


def test_memory_is_what_was_taken_since():
    memory = meter.Memory(CPU)
    held = torch.ones(64, 2**20)  # 256 MiB
    taken = memory.taken()
    assert taken is None or 200 * 2**20 < taken < 400 * 2**20
    del held
    peak = meter.process_peak()
    assert peak is None or peak > 200 * 2**20
