"""Tables as text: how one is laid out, its lines in blocks, and the rows of a block."""

import gzip
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
from msgspec import Struct

from mobtk.data.formats import HEAD, Reading, Span, first_bytes, is_number, is_utf16, some_names
from mobtk.errors import BadInput

BLOCK = 48 << 20
"""Bytes of a piece of text."""
SPLITTABLE = ("utf-8", "utf8", "utf-8-sig", "ascii", "latin-1", "latin1", "iso-8859-1", "cp1252", "windows-1252")


class NoHeader(BadInput):
    """A text begins with a row: a sentence, and how many columns it has."""

    def __init__(self, sentence: str, columns: int = 0) -> None:
        super().__init__(sentence)
        self.columns = columns


class Text(Struct, frozen=True):
    """How a text is laid out: what parts its columns, their names, and the lines before the first row."""

    separator: str
    names: list[str]
    skip: int
    encoding: str
    decimal: str


def text_layout(file: Path, reading: Reading) -> Text:
    """The layout of a text, by its first lines."""
    head = first_bytes(file)
    encoding = reading.encoding or ("utf-16" if is_utf16(file) else "utf-8-sig")
    try:
        words = head.decode(encoding)
    except LookupError:
        raise BadInput(f"--encoding {encoding!r} is unknown; try utf-8, latin-1 or utf-16") from None
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            told = f"not in {encoding}" if reading.encoding else "not UTF-8"
            raise BadInput(
                f"{file} is {told} (byte {head[error.start]:#04x} in its first lines); say what it is with --encoding, "
                "such as latin-1"
            ) from None
        words = head.decode(encoding, "ignore")
    if "\x00" in words[:4096]:
        raise BadInput(f"{file} is no text: it holds zero bytes; is it of another kind than its name says?")
    lines = words.splitlines()
    if len(lines) <= 1 and len(head) >= HEAD:
        raise BadInput(f"{file}: its first line is longer than {HEAD >> 20} MB; it is no table of points")
    blank = next((i for i, line in enumerate(lines) if line.strip()), None)
    if blank is None:
        raise BadInput(f"{file} is empty")
    if reading.format == "geolife":
        return Text(",", list(reading.columns or ()), 6, encoding, ".")
    first = lines[blank]
    separator = reading.separator or _separator(first)
    separator = {"tab": "\t", "space": " ", "\\t": "\t"}.get(separator, separator)
    if len(separator) != 1:
        raise BadInput(f"--separator is one character, or tab or space, not {separator!r}")
    fields = [f.strip().strip('"') for f in first.split(separator)]
    if reading.columns is not None:
        if len(fields) != len(reading.columns):
            raise BadInput(f"{file} has {len(fields)} columns, and {len(reading.columns)} are named: {','.join(fields)}")
        return Text(separator, list(reading.columns), blank, encoding, reading.decimal)
    if sum(map(is_number, fields)) >= max(1, len(fields) // 2) and reading.format == "table":
        raise NoHeader(
            f"{file} has no header (its first line is {first[:80]!r}); name its columns with --columns, such as "
            f"{','.join(['user', 'time', 'lat', 'lon', *(f'c{i}' for i in range(5, 99))][: len(fields)])}",
            len(fields),
        )
    return Text(separator, fields, blank + 1, encoding, reading.decimal)


def _separator(line: str) -> str:
    """What parts the columns, by one line."""
    best = max(",;\t|", key=line.count)
    return best if line.count(best) else " "


LONGEST = 16 << 20
"""Bytes that a line may have."""


def _line(source: Any, file: Path) -> Any:
    """The rest of a line."""
    line = source.readline(LONGEST)
    if len(line) == LONGEST:
        raise BadInput(f"{file} holds a line longer than {LONGEST >> 20} MB; it is no table of points")
    return line


def text_blocks(file: Path, span: Span, text: Text) -> Iterator[bytes]:
    """Whole lines of a part of a text, in UTF-8, without the header."""
    whole = span.last < 0
    if not whole:
        with file.open("rb") as source:
            begin = span.first
            if begin == 0:
                for _ in range(text.skip):
                    _line(source, file)
            else:
                source.seek(begin - 1)
                _line(source, file)
            begin = source.tell()
            data = source.read(max(0, span.last - begin)) if begin < span.last else b""
            if data and not data.endswith(b"\n"):
                data += _line(source, file)
        yield _recoded(data, text, file)
        return
    opened: Any = gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")  # noqa: SIM115 - closed by those who read it
    with io.TextIOWrapper(opened, encoding=text.encoding, newline="\n") as lines:
        for _ in range(text.skip):
            _line(lines, file)
        while block := lines.read(BLOCK // 4):
            yield (block + _line(lines, file)).encode()


def _recoded(data: bytes, text: Text, file: Path) -> bytes:
    if text.encoding in ("utf-8", "utf-8-sig", "ascii", "utf8"):
        return data
    return data.decode(text.encoding).encode()


def parse_text(block: bytes, text: Text, reading: Reading | None, file: Path, broken: list[int]) -> pa.Table:
    """Rows of a block of lines; of all columns where there is no reading."""
    use = wanted_columns(reading, text.names, file) if reading is not None else text.names
    if reading is not None and reading.format == "porto":
        use = ["TAXI_ID", "TIMESTAMP", "POLYLINE"]
    if not block.strip():
        return pa.table({c: pa.array([], pa.string()) for c in use})
    names = _distinct(text.names)
    if text.separator == " ":
        block = b"\n".join(b" ".join(line.split()) for line in block.splitlines())

    def count(row: Any) -> str:
        if broken:
            broken[0] += 1
        return "skip"

    types: dict[str, pa.DataType] = {}
    if reading is not None:
        words = [c for c in str(reading.user).split(",") if c in use] + ([reading.place] if reading.place else [])
        types = {c: pa.dictionary(pa.int32(), pa.string()) for c in words}
        if reading.format == "geolife":
            types |= {"day": pa.string(), "clock": pa.string()}
    try:
        return pyarrow.csv.read_csv(
            io.BytesIO(block),
            read_options=pyarrow.csv.ReadOptions(use_threads=False, column_names=names, block_size=len(block) + 1),
            parse_options=pyarrow.csv.ParseOptions(delimiter=text.separator, invalid_row_handler=count),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=use, column_types=types, strings_can_be_null=True, decimal_point=text.decimal
            ),
        )
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error) or "utf" in str(error).lower():
            raise BadInput(
                f"{file} holds bytes that are not UTF-8; say what it is with --encoding, such as latin-1"
            ) from None
        raise


def _distinct(names: Sequence[str]) -> list[str]:
    """Names without repetition: a second ``x`` is no column that anybody can name."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return out


def wanted_columns(reading: Reading, present: Sequence[str], file: Path) -> list[str]:
    """The columns to read of a file."""
    columns: list[str] = []
    for role in ("user", "time", "lat", "lon", "accuracy", "place"):
        told = getattr(reading, role)
        if told is None or told.startswith("@") or (told == "geometry" and role in ("lat", "lon")):
            continue
        if reading.places is not None and role in ("lat", "lon"):
            continue
        parts = [told] if told in present else told.split(",")
        for part in parts:
            if part not in present:
                raise BadInput(
                    f"{file} has no column {part!r} for the {role}; it has {some_names(present)}: name the right "
                    f"one with --{role}"
                )
        columns += parts
    return list(dict.fromkeys(columns))
