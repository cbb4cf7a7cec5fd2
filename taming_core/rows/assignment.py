"""Which split each identity goes to: shares are met by rank, so that even a few identities fill every split.

Identities are ranked by a hash of their name and the seed: test takes the first, validation the next. Neither the order
nor the number of files matters. One more identity moves at most three others, each to a neighbouring split: one where
its own place makes room, and one more for each split whose count it raises.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping

from taming_core.params.sections import MaterializeParams
from taming_core.seeds import seed_for

LEAST = {"test": 2, "validation": 1}  # evaluation tells objects apart, so that it needs two
# An identity without a photo that becomes a row with an object would fill a place for nothing.
USABLE = """
insert into usable select distinct photo_id from objects join captions on captions.key = objects.key
where object_id is not null and objects.drop_reason is null and captions.drop_reason is null
and caption is not null and object_caption is not null
"""
GROUPS = """
insert into splits
select coalesce(first, name), min(given_split), max(is_usable) from (
    select coalesce(identity, photo_id) as name, given_split, photo_id in (select photo_id from usable) as is_usable
    from objects where object_id is null or identity is not object_id
) left join groups on groups.identity = name group by 1
"""
TAKE = """
update splits set split = ? where name in (
    select name from splits where split is null and is_usable order by place(name), name limit ?
)
"""


def find_usable(db: sqlite3.Connection) -> None:
    """Fill the table `usable` of `index.fill`: the photos that become rows with an object."""
    db.execute(USABLE)


def assign_splits(db: sqlite3.Connection, p: MaterializeParams) -> None:
    """Fill the table `splits` of `index.fill`: a split for each group of identities."""

    def place(name: str) -> int:
        return seed_for(p.seed, f"split:{name}", 0)

    db.create_function("place", 1, place, deterministic=True)
    db.execute(GROUPS)
    counts = Counter(dict(db.execute("select split, count(*) from splits where is_usable group by split").fetchall()))
    free = counts.pop(None, 0)
    for split, count in held_out_counts(free, counts, p).items():
        db.execute(TAKE, (split, count))
    db.execute("update splits set split = 'train' where split is null")


def held_out_counts(free: int, given: Mapping[str, int], p: MaterializeParams) -> dict[str, int]:
    """How many of the `free` identities test and validation take: what their shares leave after those of `given`.

    Each takes at least `LEAST` and leaves the other one, and training one, as far as there are as many.
    """
    total = free + sum(given.values())
    shares = {"test": p.test, "validation": p.validation}
    lacking = {s: max(LEAST[s], round(share * total)) - given.get(s, 0) if share else 0 for s, share in shares.items()}
    spare = max(free - (not given.get("train")), 0)
    reserved = 1 if lacking["validation"] > 0 and not given.get("validation") else 0
    test = max(min(lacking["test"], max(spare - reserved, min(spare, 1))), 0)
    return {"test": test, "validation": max(min(lacking["validation"], spare - test), 0)}
