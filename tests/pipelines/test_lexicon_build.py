"""The WordNet tables are built from WordNet's files."""

from pathlib import Path

import pyarrow.parquet as pq

from pipelines.lexicon import build


def test_the_tables_are_built_from_wordnets_files(tmp_path: Path) -> None:
    files = {
        "data.noun": [
            "  1 the licence",
            "00000010 03 n 01 entity 0 000 | what is",
            "00000020 05 n 02 ice_bear 0 polar_bear 0 001 @ 00000010 n 0000 | white",
            "00000030 05 n 01 Knut 0 001 @i 00000020 n 0000 | a named one",
        ],
        "index.noun": [
            "entity n 1 0 1 1 00000010  ",
            "ice_bear n 2 1 @ 2 1 00000030 00000020  ",
            "knut n 1 0 1 0 00000030  ",
        ],
        "index.sense": [
            "ice_bear%1:05:00:: 00000020 1 7",
            "entity%1:03:00:: 00000010 1 2",
            "bare%3:00:00:: 00000099 1 4",
        ],
        "noun.exc": ["oxen ox"],
        "verb.exc": ["bore bear"],
    }  # fmt: skip
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    build.main(tmp_path, tmp_path / "out")
    made = {
        name: pq.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist() for name in ("nouns", "synsets", "words")
    }
    assert made["nouns"] == [
        {"lemma": "entity", "synsets": [0], "counts": [2]},
        {"lemma": "ice bear", "synsets": [1], "counts": [7]},
    ]
    assert made["synsets"] == [{"hypernyms": []}, {"hypernyms": [0]}, {"hypernyms": [1]}]
    assert made["words"] == [
        {"lemma": "bare", "adjective": 4, "adverb": None, "noun": None, "verb": None},
        {"lemma": "entity", "adjective": None, "adverb": None, "noun": 2, "verb": None},
    ]
    forms = pq.read_table(tmp_path / "out" / "forms.parquet").to_pylist()
    assert forms == [
        {"form": "oxen", "lemma": "ox", "kind": "noun"},
        {"form": "people", "lemma": "person", "kind": "noun"},
        {"form": "bore", "lemma": "bear", "kind": "verb"},
    ]
