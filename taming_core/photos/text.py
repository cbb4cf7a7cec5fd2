"""Text files as editors and spreadsheets write them."""

import codecs

from taming_core.photos.files import read_file
from taming_core.storage.paths import AnyPath

MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
LATIN = "Latin-1"


def read_text(path: AnyPath) -> tuple[str, str]:
    r"""A file's text with `\n` at the ends of lines, and its encoding: UTF-8, UTF-16 by its mark, or else Latin-1.

    Latin-1 is read as its superset Windows-1252, which is what programs for Windows write.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no text.
    """
    text, encoding = decode_text(read_file(path))
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def decode_text(data: bytes) -> tuple[str, str]:
    r"""The text in the bytes of a file, and its encoding.

    >>> decode_text("é".encode()), decode_text("é".encode("utf-8-sig")), decode_text(b"\xe9")
    (('é', 'utf-8'), ('é', 'utf-8-sig'), ('é', 'Latin-1'))

    Raises:
        ValueError: the bytes are no text.
    """
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    if encoding != "utf-16" and b"\0" in data:
        raise ValueError("it is not a text file")
    try:
        return data.decode(encoding), encoding
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise
    return _decode_latin(data), LATIN


def _decode_latin(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:  # of its 256 bytes five are free
        return data.decode("latin-1")


def clean(text: str) -> str:
    r"""The text with a question mark for each half of a surrogate pair, which JSON can hold and UTF-8 cannot.

    >>> clean("a \ud83d cat")
    'a ? cat'
    """
    return text.encode("utf-8", "replace").decode("utf-8")
