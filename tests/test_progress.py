"""The progress of shards adds up their drop reasons, and ends the engine with the loop."""

from collections import Counter
from collections.abc import Generator

import pytest

from taming_core.engine.work import ShardDone
from taming_core.progress import track_shards


def shards(ended: list[bool], fails: bool = False) -> Generator[ShardDone]:
    try:
        yield ShardDone(0, 2, Counter({"kept": 1, "cut off": 1}))
        if fails:
            raise KeyboardInterrupt
        yield ShardDone(1, 1, Counter({"kept": 1}))
    finally:
        ended.append(True)


def test_drop_reasons_are_added_up() -> None:
    assert track_shards(shards([]), "test", 3) == {"kept": 2, "cut off": 1}


def test_the_engine_ends_when_the_loop_does() -> None:
    ended: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        track_shards(shards(ended, fails=True), "test", 3)
    assert ended
