"""Data as text: for a terminal, for Markdown, for Mermaid. Nothing in a name or a comment can act there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from skinspire_db.patterns import lazy_regex

if TYPE_CHECKING:
    from skinspire_db.inspection.overview import Inspection

Row = dict[str, Any]
# Control characters, which a terminal obeys, and those that turn the direction of a text or cannot be seen. The joiners
# U+200C and U+200D stay: names in Indian scripts are written with them.
UNPRINTABLE = lazy_regex(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
MARKDOWN = lazy_regex(r"[\\`*\[\]<>|~&#$@]|(?<=:)//|(?<=\bwww)\.|(?<![^\W_])_|_(?![^\W_])", re.IGNORECASE)
MERMAID = lazy_regex(r"[^\w .,()-]")
MERMAID_KEYS = ("pk", "fk", "uk")  # words of its own inside an entity
HEADERS = {
    "bytes": "size",
    "transaction_seconds": "transaction",
    "state_seconds": "for",
    "privileges": "may",
    "foreign_keys": "FKs",
    "what": "what it does",
}
# Of use in --json and to Mermaid, and nothing to read.
FOR_JSON = (
    "rows_estimated", "entry", "steps", "tool_version", "server_version", "references_schema", "references_table", "optional",
    "one_to_one",
)  # fmt: skip
OF_AN_OPERATION = ("environment", "host", "role")  # db.history --operation shows them
SPARED = ("owner", "kind", "schema")  # columns that a narrow terminal does without, where they are alike in all rows
SHORTENED = {"query": 60, "result": 90}  # characters
NUMBER = lazy_regex(r"[~+-]?\d[\d,]*(\.\d+)?( (bytes|kB|MB|GB|TB|s|min|h))?")
NO_NUMBER = ("", "-", "unknown")
GAP, INDENT = "  ", "  "  # between the columns of a table, and before it
ESTIMATES = "~ is PostgreSQL's estimate, unknown where it has none; --exact counts"


def printable(text: str, keep: str = "") -> str:
    """The text with every character that could act on a terminal written out, ESC as \\x1b.

    Args:
        text: the text.
        keep: the characters that stay.
    """
    if text.isascii() and text.isprintable():  # nearly everything, and far faster
        return text
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _written_out(found[0]), text)


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode()


def tabular(rows: Iterable[Sequence[object]], headers: Sequence[str], style: str = "simple", width: int | None = None) -> str:
    """Rows under headers, aligned whatever the script; values are shown as they are, also what looks like a number.

    Args:
        rows: Their values, as many in each as there are headers.
        headers: May be none at all.
        style: One of tabulate's.
        width: In columns of a terminal. What is too long for it is wrapped within its cell; None for no limit.

    Returns:
        The table's lines, columns of numbers aligned to the right but in Markdown.
    """
    from tabulate import tabulate

    cells = [[printable(str(value)) for value in row] for row in rows]
    columns = list(zip(*cells, strict=True))
    widths: Any = _fitted(columns, headers, width)
    if cells and style != "github":
        widths["colalign"] = ["right" if _numeric(column) else "left" for column in columns]
    return tabulate(
        cells, headers=list(headers), tablefmt=style, disable_numparse=True, preserve_whitespace=True, missingval="", **widths
    )


def _numeric(column: Sequence[str]) -> bool:
    """Whether a column holds numbers, some of them with a unit, and nothing else but what stands for none."""
    return all(NUMBER.fullmatch(cell) or cell in NO_NUMBER for cell in column) and any(map(NUMBER.fullmatch, column))


def _fitted(columns: Sequence[Sequence[str]], headers: Sequence[str], width: int | None) -> dict[str, Any]:
    """tabulate's arguments that make these columns fit into the width; none when they do so by themselves.

    No column is narrower than its longest word, unless the words are too long together: then the longest are broken.
    """
    from tabulate import MIN_PADDING  # that it adds to headers
    from wcwidth import wcswidth

    def widest(texts: Iterable[str], header: Iterable[str]) -> int:
        return max(1, *map(wcswidth, texts), *(wcswidth(text) + MIN_PADDING for text in header), 0)

    above = [headers[at : at + 1] for at in range(len(columns))]
    natural = [widest(column, header) for column, header in zip(columns, above, strict=True)]
    room = (width or 0) - len(GAP) * (len(columns) - 1)
    if width is None or sum(natural) <= room:
        return {}
    words = [
        widest(" ".join(column).split(), " ".join(header).split()) for column, header in zip(columns, above, strict=True)
    ]
    least = words if sum(words) <= room else _shared(room, words, [1] * len(words))
    widths = _shared(room, natural, least)
    return {
        "maxcolwidths": widths,
        "maxheadercolwidths": [max(1, each - MIN_PADDING) for each in widths],
        "break_on_hyphens": False,
    }


def _shared(room: int, wanted: Sequence[int], least: Sequence[int]) -> list[int]:
    """What each gets of the room: the least it needs, and then the narrowest one more as long as there is some."""
    given = list(least)
    while sum(given) < room and (open_ := [at for at, has in enumerate(given) if has < wanted[at]]):
        given[min(open_, key=given.__getitem__)] += 1
    return given


def width_of(text: str) -> int:
    """How many columns of a terminal a line takes, whatever the script."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth

    return max(0, wcswidth(printable(text)))


def padded(text: str, width: int) -> str:
    """The text with spaces up to the width."""
    return text + " " * (width - width_of(text))


def folded(text: str, width: int) -> list[str]:
    """The text's words in lines of the width, in columns of a terminal; a long word stays whole, spaces within a line too."""
    lines: list[str] = []
    for word in re.findall(r"\s*\S+", text):
        if lines and width_of(lines[-1]) + width_of(word) <= width:
            lines[-1] += word
        else:
            lines.append(word.lstrip() if lines else word)
    return lines


def in_lines(text: str, width: int | None, indent: str = "") -> str:
    """A sentence in lines; a long word stays whole.

    Args:
        text: the sentence.
        width: the number of columns; None for one line.
        indent: what the first line begins with; the later ones are indented by more.
    """
    if width is None:
        return f"{indent}{text}"
    lines = folded(text, width - len(indent + INDENT))
    return "\n".join(f"{indent}{INDENT if number else ''}{line}" for number, line in enumerate(lines))


def as_text(found: Inspection, width: int | None = None) -> str:
    """What a terminal shows.

    Args:
        found: what was found.
        width: the number of columns; None for no limit.
    """
    inside = None if width is None else width - len(INDENT)
    blocks = [in_lines(printable(f"{found.environment}: {found.target}"), width)]
    if found.about:
        blocks.append(_indented(tabular(_facts(found.about), (), "plain", inside)))
    for name, rows in found.sections.items():
        shown, alike = _spared(rows, inside)
        blocks.append(in_lines(_title(name, rows) + alike, width))
        if rows:
            blocks.append(_indented(tabular(*_cells(shown), width=inside)))
    return "\n".join(blocks)


def as_markdown(found: Inspection) -> str:
    """GitHub's Markdown."""
    blocks = [f"# {_in_markdown(f'{found.environment}: {found.target}')}"]
    blocks += [f"- {name}: {_in_markdown(value)}" for name, value in _facts(found.about)]
    for name, rows in found.sections.items():
        blocks.append(f"\n## {_title(name, rows)}\n")
        if rows:
            cells, headers = _cells(rows)
            blocks.append(tabular(([_in_markdown(cell) for cell in row] for row in cells), headers, "github"))
    return "\n".join(blocks)


def as_mermaid(found: Inspection) -> str:
    """An entity relationship diagram: each table with its columns, each foreign key a line."""
    lines = ["erDiagram"]
    tables: dict[str, list[Row]] = {_entity(row["schema"], row["table"]): [] for row in found.sections.get("tables", [])}
    for column in found.sections["columns"]:
        name = _entity(column["schema"], column["table"])
        if name in tables or "tables" not in found.sections:
            tables.setdefault(name, []).append(column)
    for name, columns in tables.items():
        lines += [f"    {name} {{", *map(_attribute, columns, range(1, len(columns) + 1)), "    }"]
    for key in found.sections["foreign_keys"]:
        parent, child = _entity(key["references_schema"], key["references_table"]), _entity(key["schema"], key["table"])
        ends = f"{'|o' if key['optional'] else '||'}--{'o|' if key['one_to_one'] else 'o{'}"
        lines.append(f"    {parent} {ends} {child} : {_quoted(', '.join(key['columns']))}")
    return "\n".join(lines)


# The cells


def _title(name: str, rows: list[Row]) -> str:
    title = f"{name.replace('_', ' ')}: {len(rows) or 'none'}"
    estimated = any(row.get("rows_estimated") for row in rows)
    return f"{title} ({ESTIMATES})" if estimated else title


def _spared(rows: list[Row], width: int | None) -> tuple[list[Row], str]:
    """The rows without columns that are alike in all of them, where words would be broken for want of room; and these."""
    alike = []
    for key in SPARED:
        if len(rows) < 2 or width is None or _has_room(*_cells(rows), width):
            break
        if key in rows[0] and len({row[key] for row in rows}) == 1:
            alike.append(f", {key} {rows[0][key]}")
            rows = [{name: value for name, value in row.items() if name != key} for row in rows]
    return rows, "".join(alike)


def _has_room(cells: Sequence[Sequence[str]], headers: Sequence[str], width: int) -> bool:
    """Whether no word has to be broken."""
    from tabulate import MIN_PADDING

    columns = zip(*cells, strict=True)
    words = (
        max(
            width_of(printable(word))
            for word in (*" ".join(column).split(), *(w + " " * MIN_PADDING for w in header.split()))
        )
        for column, header in zip(columns, headers, strict=True)
    )
    return sum(words) + len(GAP) * (len(headers) - 1) <= width


def _cells(rows: list[Row]) -> tuple[list[list[str]], list[str]]:
    """The values as a reader wants them, and the headers; columns in which no row says anything are left out."""
    empty: tuple[object, ...] = (None, "", [])
    hidden = FOR_JSON + (OF_AN_OPERATION if "entry" in rows[0] else ())
    keys = [key for key in rows[0] if key not in hidden and any(row[key] not in empty for row in rows)]
    keys += ["rows"] if "rows" in rows[0] and "rows" not in keys else []
    keys.sort(key=list(rows[0]).index)
    return [[_cell(key, row) for key in keys] for row in rows], [HEADERS.get(key, key.replace("_", " ")) for key in keys]


def _cell(key: str, row: Row) -> str:
    value = row[key]
    match value:
        case None if key == "rows":
            return "unknown"
        case None | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int() if key == "bytes":
            return size(value)
        case int() if key == "rows":
            return f"~{value}" if row["rows_estimated"] else str(value)
        case int() | float() if key.endswith("seconds"):
            return f"{value:.2f} s" if value < 60 else f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.0f} h"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M} UTC"
        case list():
            return ", ".join(map(str, value))
        case str() if key in SHORTENED:
            line = " ".join(value.split())
            return line if len(line) <= SHORTENED[key] else f"{line[: SHORTENED[key] - 3]}..."
        case _:
            return str(value)


def size(count: int) -> str:
    """Bytes as PostgreSQL's pg_size_pretty writes them: 8 kB, 24 MB."""
    amount, unit = float(count), 0
    while amount >= 10 * 1024 and unit < 4:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}"


def _facts(about: Row) -> list[tuple[str, str]]:
    """The database itself, in a few lines."""
    if "version" not in about:
        return [("connections", f"{about['used']} of {about['maximum']}, {about['here']} of them to this database")]
    replica = ", a replica" if about["replica"] else ""
    stamp = about["stamp"]
    facts = [
        ("server", f"PostgreSQL {about['version']}{replica}, running since {_cell('running_since', about)}"),
        ("database", f"{size(about['bytes'])}, {about['encoding']}, collation {about['collation']}, owner {about['owner']}"),
        ("stamp", f"{stamp['environment']}, identity {stamp['identity']}" if stamp else "none"),
    ]
    if about.get("tables_of_tools"):
        facts.append(("left out", f"{about['tables_of_tools']} tables of the tools, in the schema skinspire_tools"))
    if about.get("revisions") is not None:
        at = ", ".join(about["revisions"]) or "no revision"
        head = {True: ", the head", False: ", which is not the head", None: ""}[about["at_head"]]
        facts.append(("migrations", f"at {at}{head}"))
    if state := about.get("triggers_state"):
        wrong = state["wrong"]
        right = f"{state['installed']} functions and triggers are as the files say"
        facts.append(
            ("triggers", f"{len(wrong)} of {state['objects']} are not as the files say: {wrong[0]}" if wrong else right)
        )
    return facts


def _indented(text: str) -> str:
    return "\n".join(f"{INDENT}{line}".rstrip() for line in text.split("\n"))


def _in_markdown(text: str) -> str:
    """Text that Markdown shows as it is. Only what would mean something there is escaped: it is read unrendered too."""
    return MARKDOWN.sub(lambda found: "".join(f"\\{character}" for character in found[0]), printable(text))


# Mermaid


def _entity(schema: str, table: str) -> str:
    plain = schema == "public" and "." not in table
    return _quoted(table if plain else f"{schema}.{table}")


def _quoted(text: str) -> str:
    """Text in Mermaid's quotes; what could end it or mean something is written as Mermaid's #code;."""
    return '"' + MERMAID.sub(lambda found: f"#{ord(found[0])};", printable(text)) + '"'


def _attribute(column: Row, number: int) -> str:
    name, comment = column["column"], ""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.lower() in MERMAID_KEYS:
        name, comment = f"column_{number}", f" {_quoted(name)}"
    kind = re.sub(r"[^A-Za-z0-9_()\[\]]", "_", column["type"])
    kind = kind if re.match(r"[A-Za-z_]", kind) and kind.lower() not in MERMAID_KEYS else f"_{kind}"
    keys = ", ".join(key for key, has in (("PK", column["primary_key"]), ("FK", column["foreign_key"])) if has)
    return f"        {kind} {name}{f' {keys}' if keys else ''}{comment}"
