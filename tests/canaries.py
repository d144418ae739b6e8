"""Values that must not come through: unique tokens in everything a database can hold, and a search for them in any bytes.

It knows nothing of masks and their rules. All tokens of a run begin with the same random letters, or with random bytes of
their type, so that one search for these finds each of them, however it is written.
"""

from __future__ import annotations

import base64
import json
import random
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

LETTERS = "ghjkmnpqrtvwxyz"  # none of them is a digit of a hexadecimal number
BINARY = ("uuid", "inet", "cidr", "macaddr8", "varbit")
TYPES = """
CREATE EXTENSION IF NOT EXISTS citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree;
CREATE DOMAIN word AS text; CREATE DOMAIN words AS word CHECK (VALUE <> ''); CREATE DOMAIN sentence AS text[]; CREATE DOMAIN facts AS jsonb;
CREATE TYPE pair AS (a int, b words); CREATE TYPE nested AS (p pair, q pair[], r jsonb); CREATE DOMAIN pairs AS nested;
CREATE TYPE span AS RANGE (subtype = text, collation = "C", multirange_type_name = spans);
CREATE FUNCTION backwards(text) RETURNS text IMMUTABLE LANGUAGE sql RETURN reverse($1);
"""
UNCOMPRESSED = """
    DO $$ DECLARE a record; BEGIN
        FOR a IN SELECT attrelid::regclass AS t, attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
                 WHERE attrelid >= 16384 AND attstorage IN ('x', 'm') AND relkind IN ('r', 'p') AND attnum > 0 AND relnamespace = 'public'::regnamespace
        LOOP EXECUTE format('ALTER TABLE %s ALTER %I SET STORAGE EXTERNAL', a.t, a.attname); END LOOP;
    END $$
"""


@dataclass
class Canaries:
    """The tokens of one run.

    Attributes:
        source: where the random values come from; give it to get the same tokens again.
        places: number of a token -> what holds it.
        exact: the text of a value of a type that has no room for a token -> what holds it.
    """

    source: random.Random = field(default_factory=random.SystemRandom)
    places: dict[int, str] = field(default_factory=dict)
    exact: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.prefix = "".join(self.source.choices(LETTERS, k=10))
        # No byte has a zero in its first half: a group of an IPv6 address is then written with all its digits.
        self.bytes = {type_: bytes(self.source.randrange(16, 256) for _ in range(6)) for type_ in BINARY}
        self.large = self.source.randrange(1 << 44, 1 << 46) << 16
        self.groups = [self.source.randrange(1000, 9999) for _ in range(3)]

    def token(self, place: str) -> str:
        """A new token; `place` is what will hold it."""
        self.places[len(self.places)] = place
        return f"{self.prefix}{len(self.places) - 1:04x}"

    def number(self, place: str) -> int:
        """Two bytes that no other value of the type has."""
        self.counts[place] += 1
        return self.counts[place]

    def once(self, place: str, make: Callable[[], str]) -> str:
        """A value that no other one has, of a type without room for a token."""
        while (value := make()) in self.exact:
            pass
        self.exact[value] = place
        return value

    @property
    def total(self) -> int:
        """How many values there are."""
        return len(self.places) + len(self.exact) + sum(self.counts.values())

    # Values, as their text

    def document(self, place: str, depth: int = 5) -> object:
        """A JSON document with a token in each key and value at every depth."""
        inner = self.document(place, depth - 1) if depth else self.token(place)
        return {
            self.token(f"{place}, key"): inner,
            self.token(f"{place}, key"): [self.token(place), {"id": self.token(place)}],
        }

    def markup(self, place: str) -> str:
        """XML with a token as element, attribute, value, text and comment."""
        element, attribute, value, text, comment = (self.token(place) for _ in range(5))
        return f'<{element} {attribute}="{value}"><b>{text}</b><!--{comment}--></{element}>'

    def pair(self, place: str) -> str:
        """A composite value with a domain in it."""
        return f"(7,{self.token(place)})"

    def nested(self, place: str) -> str:
        """A composite value with composites, their array, and a document in it."""
        inner, array, document = self.pair(place), _array(self.pair(place)), json.dumps(self.document(place, 0))
        return "(" + ",".join(_quoted(each) for each in (inner, array, document)) + ")"

    def day(self) -> str:
        """A day of the century before the last, none that begins a year or a month."""
        return f"{self.source.randrange(1801, 1899)}-{self.source.randrange(2, 13):02}-{self.source.randrange(2, 28):02}"

    def moment(self) -> str:
        """A time of such a day."""
        hour, minute, part = self.source.randrange(1, 23), self.source.randrange(1, 59), self.source.randrange(100001, 999999)
        return f"{self.day()} {hour:02}:{minute:02}:17.{part}"

    def of_bytes(self, type_: str) -> bytes:
        """Eight bytes that begin as all of the type do."""
        return self.bytes[type_] + struct.pack(">H", self.number(type_))

    def address(self, type_: str) -> str:
        """An IPv6 address of such bytes."""
        return ":".join(self.of_bytes(type_).hex()[at : at + 4] for at in (0, 4, 8, 12)) + "::"

    def columns(self) -> dict[str, tuple[str, Callable[[str], str]]]:
        """Name -> type, and what makes a value for a place."""
        whole, token = self.source.randrange, self.token

        def part() -> int:
            return whole(1_000_001, 9_999_999)

        def document(place: str, depth: int = 5) -> str:
            return json.dumps(self.document(place, depth))

        return {
            "text": ("text", token), "varchar": ("varchar(40)", token), "char": ("char(30)", token), "name": ("name", token),
            "collated": ('text COLLATE "C"', token), "citext": ("citext", lambda p: token(p).title()),
            "long": ("text", lambda p: " ".join(f"{token(p)} {whole(1 << 900):x}" for _ in range(10))),
            "bytea": ("bytea", lambda p: "\\x" + token(p).encode().hex()),
            "xml": ("xml", self.markup),
            "json": ("json", document), "jsonb": ("jsonb", document), "flat": ("jsonb", lambda p: json.dumps(token(p))),
            "facts": ("facts", lambda p: document(p, 1)), "documents": ("jsonb[]", lambda p: _array(document(p, 1))),
            "hstore": ("hstore", lambda p: f"{token(p)}=>{token(p)}"), "ltree": ("ltree", lambda p: f"{token(p)}.{token(p)}"),
            "tsvector": ("tsvector", token), "tsquery": ("tsquery", lambda p: f"{token(p)} & {token(p)}"),
            "jsonpath": ("jsonpath", lambda p: f"$.{token(p)}"),
            "texts": ("text[]", lambda p: _array(token(p), token(p))), "citexts": ("citext[]", lambda p: _array(token(p))),
            "matrix": ("varchar(40)[][]", lambda p: "{" + _array(token(p)) + "," + _array(token(p)) + "}"),
            "blobs": ("bytea[]", lambda p: _array("\\x" + token(p).encode().hex())),
            "word": ("words", token), "domains": ("words[]", lambda p: _array(token(p))), "sentence": ("sentence", lambda p: _array(token(p))),
            "pair": ("pair", self.pair), "pair_array": ("pair[]", lambda p: _array(self.pair(p), self.pair(p))),
            "nested": ("nested", self.nested), "pairs": ("pairs", self.nested),
            "span": ("span", lambda p: f"[{token(p)},{'~'})"), "spans": ("spans", lambda p: f"{{[{token(p)},{'~'})}}"),
            "Odd \"1\" %": ("text", token),
            "uuid": ("uuid", lambda p: (self.of_bytes("uuid") + bytes(8)).hex()), "inet": ("inet", lambda p: self.address("inet")),
            "cidr": ("cidr", lambda p: self.address("cidr") + "/64"), "macaddr8": ("macaddr8", lambda p: self.of_bytes("macaddr8").hex()),
            "varbit": ("varbit", lambda p: f"{int.from_bytes(self.of_bytes('varbit')):064b}"),
            "bigint": ("bigint", lambda p: str(self.large + self.number("bigint"))),
            "bigints": ("bigint[]", lambda p: _array(str(self.large + self.number("bigint")))),
            "numeric": ("numeric", lambda p: "".join(map(str, self.groups)) + f"{self.number('numeric'):04}"),
            "integer": ("integer", lambda p: self.once(p, lambda: str(whole(1_000_000_001, 2_000_000_000)))),
            "float8": ("float8", lambda p: self.once(p, lambda: f"{part()}.{part()}5")),
            "money": ("money", lambda p: self.once(p, lambda: f"${part():,}.{whole(11, 99)}")),
            "date": ("date", lambda p: self.once(p, self.day)), "timestamp": ("timestamp", lambda p: self.once(p, self.moment)),
            "timestamptz": ("timestamptz", lambda p: self.once(p, lambda: self.moment() + "+00")),
            "point": ("point", lambda p: self.once(p, lambda: f"({part()},{part()})")),
            "numrange": ("numrange", lambda p: self.once(p, lambda: f"[{part()},{10**8 + part()})")),
            "time": ("time", lambda p: self.once(p, lambda: self.moment()[11:])), "timetz": ("timetz", lambda p: self.once(p, lambda: self.moment()[11:] + "+00")),
            "interval": ("interval", lambda p: self.once(p, lambda: f"{part()} days {self.moment()[11:]}")),
            "real": ("real", lambda p: self.once(p, lambda: f"{whole(10001, 99999)}.{whole(1, 9)}")), "oid": ("oid", lambda p: self.once(p, lambda: str(whole(1 << 31, 1 << 32)))),
            "macaddr": ("macaddr", lambda p: self.once(p, lambda: ":".join(f"{whole(256):02x}" for _ in range(6)))),
            "bit": ("bit(64)", lambda p: self.once(p, lambda: f"{whole(1 << 64):064b}")), "pg_lsn": ("pg_lsn", lambda p: self.once(p, lambda: f"{part():X}/{part():X}")),
            "box": ("box", lambda p: self.once(p, lambda: f"({10**8 + part()},{10**8 + part()}),({part()},{part()})")),
            "lseg": ("lseg", lambda p: self.once(p, lambda: f"[({part()},{part()}),({part()},1)]")), "line": ("line", lambda p: self.once(p, lambda: f"{{{part()},{part()},1}}")),
            "path": ("path", lambda p: self.once(p, lambda: f"[({part()},{part()}),({part()},1)]")), "circle": ("circle", lambda p: self.once(p, lambda: f"<({part()},{part()}),1>")),
            "polygon": ("polygon", lambda p: self.once(p, lambda: f"(({part()},{part()}),({part()},1),(2,3))")),
            "daterange": ("daterange", lambda p: self.once(p, lambda: f"[{self.day()},2001-02-03)")),
            "datemultirange": ("datemultirange", lambda p: self.once(p, lambda: f"{{[{self.day()},2001-02-03)}}")),
        }  # fmt: skip

    def statements(self, rows: int) -> Iterator[str]:
        """The SQL that makes a database of canaries, with so many rows in each of the two widest tables."""
        yield TYPES
        columns = self.columns()
        for table, required in (("loose", ""), ("strict", " NOT NULL")):
            body = ", ".join(f"{_name(name)} {type_}{required}" for name, (type_, _) in columns.items())
            yield f"CREATE TABLE {table} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {body}); {UNCOMPRESSED}"
            for start in range(0, rows, 20):
                values = (
                    "(" + ", ".join(_literal(make(f"{table}.{name}")) for name, (_, make) in columns.items()) + ")"
                    for _ in range(min(20, rows - start))
                )
                yield f"INSERT INTO {table} ({', '.join(map(_name, columns))}) VALUES {', '.join(values)}"
            yield f"CREATE INDEX ON {table} (text); CREATE INDEX ON {table} USING gin (jsonb); CREATE STATISTICS ON text, varchar FROM {table}"
        yield from self._other_tables(rows)
        yield from self._beside_rows()
        yield "ANALYZE"

    def _other_tables(self, rows: int) -> Iterator[str]:
        """Generated columns, keys, partitions, inheritance, and tables that other things are made of."""
        yield """
            CREATE TABLE computed (id text PRIMARY KEY, doubled text GENERATED ALWAYS AS (id || id) STORED,
                backwards text GENERATED ALWAYS AS (backwards(id)) STORED, big text GENERATED ALWAYS AS (upper(id)) STORED);
            CREATE TABLE child (id text UNIQUE REFERENCES computed ON UPDATE CASCADE, code varchar(30) UNIQUE NOT NULL, parent text REFERENCES computed);
            CREATE TABLE divided (at date NOT NULL, note text) PARTITION BY RANGE (at);
            CREATE TABLE divided_old PARTITION OF divided FOR VALUES FROM ('1800-01-01') TO ('1900-01-01');
            CREATE TABLE divided_rest PARTITION OF divided DEFAULT;
            CREATE UNLOGGED TABLE quick (note text); CREATE TABLE heir (extra text) INHERITS (quick);
            CREATE TABLE by_text (note text) PARTITION BY HASH (note); CREATE TABLE by_text_0 PARTITION OF by_text FOR VALUES WITH (MODULUS 2, REMAINDER 0);
            CREATE TABLE by_text_1 PARTITION OF by_text FOR VALUES WITH (MODULUS 2, REMAINDER 1);
            CREATE MATERIALIZED VIEW gathered AS SELECT id, upper(doubled) FROM computed; CREATE INDEX ON computed (lower(id)); CREATE INDEX ON computed (reverse(id));
        """
        token = self.token
        for _ in range(rows):
            key = token("computed.id")
            yield f"INSERT INTO computed VALUES ('{key}'); INSERT INTO child VALUES ('{key}', '{token('child.code')}', '{key}')"
            yield f"INSERT INTO divided VALUES ('{self.day()}', '{token('divided_old.note')}')"
            yield f"INSERT INTO divided VALUES ('2020-05-05', '{token('divided_rest.note')}'); INSERT INTO by_text VALUES ('{token('by_text.note')}')"
            yield f"INSERT INTO quick VALUES ('{token('quick.note')}'); INSERT INTO heir VALUES ('{token('heir.note')}', '{token('heir.extra')}')"
        yield "REFRESH MATERIALIZED VIEW gathered"

    def _beside_rows(self) -> Iterator[str]:
        """Comments, and large objects."""
        for kind in ("TABLE loose", "COLUMN loose.text", "TYPE pair", "SCHEMA public", "INDEX loose_pkey", "DOMAIN word",
                     "CONSTRAINT loose_pkey ON loose", "FUNCTION backwards(text)", "MATERIALIZED VIEW gathered"):  # fmt: skip
            yield f"COMMENT ON {kind} IS '{self.token(f'comment on {kind}')}'"
        yield f"SELECT lo_from_bytea(0, '{self.token('large object')}')"

    # The search

    def patterns(self) -> dict[bytes, str]:
        """What all tokens contain, in every encoding -> what that is. Those in small letters are looked for in any case."""
        found = {}
        plain = self.prefix.encode()
        for how, text in {"": plain, " of capitals": plain.upper(), " of the reverse": plain[::-1]}.items():
            if text != plain.upper():
                found[text] = f"a token{how}"
            found[text.hex().encode()] = f"hex{how}"
            found |= dict.fromkeys(_base64(text), f"base64{how}")
        for type_, value in self.bytes.items():
            digits = value.hex()
            found |= {value: f"{type_}, raw", digits.encode(): f"{type_}, hex"} | dict.fromkeys(
                _base64(value), f"{type_}, base64"
            )
            found[f"{digits[:8]}-{digits[8:]}".encode()] = f"{type_} as uuid"
            found[":".join(digits[at : at + 4] for at in (0, 4, 8)).encode()] = f"{type_} as inet"
            found[":".join(digits[at : at + 2] for at in range(0, 12, 2)).encode()] = f"{type_} as macaddr"
            found[f"{int.from_bytes(value):048b}".encode()] = f"{type_} as bits"
        found[struct.pack("<q", self.large)[2:]] = "bigint, raw"
        found[_common(str(self.large), str(self.large + 65535)).encode()] = "bigint, text"
        found[struct.pack("<3h", *self.groups)] = "numeric, raw"
        found["".join(map(str, self.groups)).encode()] = "numeric, text"
        return found

    def search(self, data: bytes) -> set[str]:
        """What of the tokens is in these bytes: the places of those whose number can be read, and how others are written."""
        small = data.lower()
        found = {how for pattern, how in self.patterns().items() if pattern in (small if pattern.islower() else data)}
        numbers = re.findall(self.prefix.encode() + rb"([0-9a-f]{4})", small)
        coded = re.findall(self.prefix.encode().hex().encode() + rb"((?:3[0-9]|6[1-6]){4})", small)
        numbers += [bytes.fromhex(each.decode()) for each in coded]
        return found | {self.places.get(int(number, 16), "an unknown token") for number in set(numbers)}

    def search_text(self, text: bytes) -> set[str]:
        """The same in a dump, and the places of the values without a token."""
        lines = text.decode(errors="replace").split("\n")
        words = {word for line in lines for word in (*line.split("\t"), *re.split(r"[\t,{}\"]", line))}
        return self.search(text) | {self.exact[word] for word in words & self.exact.keys()}

    def search_files(self, folder: Path) -> dict[str, set[str]]:
        """What of the tokens is in the files of a folder and below it, by file."""
        found = {}
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and (inside := self.search(path.read_bytes())):
                found[str(path.relative_to(folder))] = inside
        return found


def _base64(text: bytes) -> set[bytes]:
    """What base64 makes of the text wherever it stands: those of its characters that depend on no neighbour."""
    found = set()
    for before in range(3):
        coded = base64.b64encode(bytes(before) + text + bytes(3))
        first, last = -(-before * 8 // 6), (before + len(text)) * 8 // 6
        found.add(coded[first:last])
    return found


def _common(one: str, other: str) -> str:
    """What both begin with."""
    at = next(at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    return one[:at]


def _array(*values: str) -> str:
    return "{" + ",".join(map(_quoted, values)) + "}"


def _quoted(value: str) -> str:
    """A value within an array or a composite."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _name(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
