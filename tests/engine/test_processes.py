"""Processes find each other, whatever an earlier attempt of their launcher left behind."""

from concurrent.futures import ThreadPoolExecutor

from torch import distributed

from pixio_robot.engine.processes import meet


def test_processes_that_were_restarted_meet_apart_from_those_before_them() -> None:
    store, met = distributed.HashStore(), []
    for attempt in range(3):
        with ThreadPoolExecutor(3) as pool:
            # The first process comes last: it must not take the questions of those before for new ones.
            parts = list(pool.map(lambda rank: meet(store, rank, 3), (2, 1, 0)))
        assert not parts[0].check(["left behind"])
        parts[1].set("left behind", str(attempt))
        assert [part.get("left behind") for part in parts] == [str(attempt).encode()] * 3
        met.append(parts)
    assert [parts[0].get("left behind") for parts in met] == [b"0", b"1", b"2"]
