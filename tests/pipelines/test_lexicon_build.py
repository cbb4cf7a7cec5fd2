"""The WordNet tables are built from WordNet's files."""

from copy import deepcopy
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.lexicon import build, links
from taming_core.language import wordnet
from taming_core.language.class_words import likeness


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
    (tmp_path / "classes.csv").write_text("class,senses\npolar bear,ice bear#1\nstop sign,\n")
    (tmp_path / "names.csv").write_text("word,class,source\nicebear,ice bear,usage\n")
    build.main(tmp_path, tmp_path / "out", names=tmp_path)
    made = {
        name: pq.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist()
        for name in ("nouns", "synsets", "words", "classes")
    }
    assert made["nouns"] == [
        {"lemma": "entity", "synsets": [0], "counts": [2]},
        {"lemma": "ice bear", "synsets": [1], "counts": [7]},
        {"lemma": "icebear", "synsets": [1], "counts": [links.VISUAL]},
    ]
    assert made["synsets"] == [
        {"hypernyms": [], "domain": 3},
        {"hypernyms": [0], "domain": 5},
        {"hypernyms": [1], "domain": 5},
    ]
    assert made["classes"] == [{"name": "polar bear", "synsets": [1]}, {"name": "stop sign", "synsets": []}]
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


# entity > animal > sheep, hogs; entity > artifact > dish, sugar bowl and bowl below it; a sense of bowl that is a place
GLOSSES = ["", "", "woolly", "young of domestic sheep", "adult female of hogs with a sheep", "", "", "", "", "swine"]
TAXONOMY = links.Taxonomy(
    hypernyms=[[], [0], [1], [1], [1], [0], [5], [5], [0], [1]],
    domains=[3, 5, 5, 5, 5, 6, 6, 6, 15, 5],
    glosses=GLOSSES,
    senses={"sheep": [2], "lamb": [3], "sow": [4], "sugar bowl": [6], "bowl": [8, 7], "hog": [9]},
    irregular={},
)


def test_glosses_name_the_animal_before_they_describe_it() -> None:
    assert list(links.animal_links(TAXONOMY)) == [(3, 2), (4, 9)]


def test_a_compound_is_a_near_sense_of_its_last_word() -> None:
    assert list(links.compound_links(TAXONOMY)) == [(6, 7)]


def test_names_become_hypernyms_senses_and_lemmas() -> None:
    taxonomy = deepcopy(TAXONOMY)
    names = [
        {"word": "sow", "class": "sheep", "source": ""},
        {"word": "lamb#0", "class": "bowl#2", "source": ""},
        {"word": "ewe", "class": "sheep", "source": ""},
        {"word": "sheep", "class": "sow", "source": ""},  # a sow is a sheep already: no circle
    ]
    meant = links.add_names(taxonomy, {"sheep": [2]}, names)
    assert taxonomy.hypernyms[4] == [1, 2]
    assert taxonomy.hypernyms[2] == [1]
    assert taxonomy.senses["lamb"] == [3, 7]
    assert taxonomy.senses["ewe"] == [2]
    assert dict(meant) == {"sheep": {2}, "sow": {4}, "lamb": {7}, "ewe": {2}}


def test_the_shipped_names_are_wordnets() -> None:
    for row in links.rows(Path(links.__file__).with_name("names.csv")):
        lemma, noun = row["word"].partition("#")[0], row["class"].partition("#")[0]
        assert wordnet.senses(lemma), row
        assert likeness(noun, lemma), row
