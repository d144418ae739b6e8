"""The masks, as SQL expressions that any role may run on a server that only reads: no function is created for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import cache

SETTING = "skinspire_db.masking"  # the sessions' setting with the secret, which no SQL text holds
SECRET = f"(SELECT decode(current_setting('{SETTING}'), 'hex'))"  # without a column, so PostgreSQL runs it once a query
HEX = "0123456789abcdef"
# The bits of eight bytes that are left of a number, and those that are set: each byte is then one of the letters bcfgrsvw, which
# make no word of any length.
LEFT, SET = int.from_bytes(b"\x15" * 8), int.from_bytes(b"\x62" * 8)
LONG = 24  # letters, which have three bits each; fewer need four each
# A zero, or half of a character: as escapes they are JSON, and no text of PostgreSQL's.
NO_JSONB = r"(?<!\\)(\\\\)*\\u(0000|[dD][89aAbB]..(?!\\u[dD][c-fC-F]))|(?<!\\u[dD][89aAbB]..)\\u[dD][c-fC-F]"
ROUNDS = 4  # of a Feistel network: enough by Luby and Rackoff against chosen plaintexts and ciphertexts
# How many values the left and the right half of a text of 0, 1 and so on digits have.
HALVES = [(10 ** (n // 2), 10 ** (n - n // 2)) for n in range(31)]
# Each range of numbers is permuted in itself: those with as many digits, cut where a type ends: so a pseudonym fits each type
# that its number fits. (first number, two factors of how many there are, as equal as can be.)
RANGES = [
    (10**n, *((3 * 10 ** (n // 2),) * 2 if n % 2 == 0 else (9 * 10 ** (n // 2), 10 ** (n // 2 + 1))))
    for n in range(18)
    if n not in (4, 9)
]
RANGES += [
    (10**4, 16, 1423),
    (2**15, 352, 191),
    (10**9, 2**9, 2241179),
    (2**31, 2**10, 7668473),
    (10**18, 2**18, 31369674823207),
]
RANGES.sort()
# Of texts of up to ten digits and numbers of up to nine, eight entries that rounds add are of one hash. For large tables, `prepared`
# has all of them computed once a query.
SHORT: dict[str, Sequence[tuple[int, ...]]] = {"digits": HALVES[:11], "number": RANGES[:10]}
PER_HASH, WIDTH = 8, 4  # entries, and their bytes


def hashed(text: str, tag: str = "") -> str:
    """The keyed hash of an SQL text, as bytea; `tag` makes it another one."""
    return f"sha256({_key(tag)} || convert_to({text}, 'UTF8'))"


def _key(tag: str) -> str:
    return f"(SELECT {SECRET} || '{tag}:'::bytea)"  # without a column, as SECRET


def number_of(digest: str) -> str:
    """A number from 0 to 2^56 - 1, of a keyed hash; what shortens that needs no key."""
    return f"(hashtextextended(encode({digest}, 'hex') COLLATE \"C\", 0) & {2**56 - 1})"


def letters(value: str, length: int) -> str:
    """Consonants, three bits of the text's hash each, in a third of the time that translate() takes.

    Args:
        value: the SQL of the text.
        length: how many, at least; a multiple of eight.
    """
    eights = " || ".join(f"int8send(hashtextextended(h, {seed}) & {LEFT} | {SET})" for seed in range((length + 7) // 8))
    return (
        f"(SELECT encode({eights}, 'escape') FROM (SELECT encode({hashed(value)}, 'hex') COLLATE \"C\" AS h OFFSET 0) AS h)"
    )


@cache
def text(value: str) -> str:
    """As many characters as the text has, and no word."""
    return f"rpad('', length({value}), {letters(value, 16)})"


@cache
def code(value: str, length: int) -> str:
    """A text of so many letters, or letters and digits, another one for each text: at 20, two of 10^9 texts do not meet."""
    if length >= LONG:
        return f"left({letters(value, length)}, {length})"
    # Without vowels it is no word; replace() takes a tenth of translate()'s time.
    return f"replace(replace(left(encode({hashed(value)}, 'hex'), {length}), 'a', 'x'), 'e', 'z')"


def name(value: str, tag: str = "name", length: int = 8) -> str:
    """An invented name of consonants and vowels in turn, of at most 14 letters.

    Of the hash's hexadecimal digits every other one is brought below 8, and the ones between to 8 and more, so that one
    translate() writes consonants for those and vowels for these.
    """
    digits = f"to_hex(({number_of(hashed(value, tag))} & {0x77777777777777}) | {0x108080808080808})"
    return f"initcap(translate(substr({digits}, 2, {length}), '{HEX}', 'bdkmnrstaeiouaei'))"


def phone(value: str) -> str:
    """As many digits as the text has characters, after its + if it has one."""
    digits = f"lpad(({number_of(hashed(value))} % {10**15})::text, 15, '0')"
    return f"rpad(CASE WHEN left({value}, 1) = '+' THEN '+' ELSE '' END, length({value}), {digits})"


@cache
def characters(value: str) -> str:
    """A bijection that keeps length and kinds: each digit becomes a digit, each letter a letter, anything else stays.

    A Feistel network over the two halves of the text; letters beyond ASCII stay in their block of 32. Texts of digits alone
    stay such texts, so that the halves can be added to as numbers, in an eighth of the time.
    """
    # A regular expression with a number of repetitions takes four times as long.
    digits = f"length({value}) BETWEEN 2 AND 30 AND ({value} COLLATE \"C\") !~ '[^0-9]'"
    return f"CASE WHEN {digits} THEN {_of_digits(value)} ELSE {_mixed(value)} END"


def _of_digits(value: str) -> str:
    parts = (
        f"SELECT length({value}) + 1 AS n, left({value}, length({value}) / 2)::bigint AS l,"
        f" substr({value}, length({value}) / 2 + 1)::bigint AS r OFFSET 0"
    )
    moved = _network("digits", parts, HALVES)
    return f"(SELECT lpad(l::text, (n - 1) / 2, '0') || lpad(r::text, n / 2, '0') FROM ({moved}) AS s)"


def _network(tag: str, parts: str, halves: list[tuple[int, int]]) -> str:
    """The query of the halves `l` and `r` after all rounds, each below its size.

    Args:
        tag: makes the hashes other ones than those of other networks.
        parts: the query of `n`, which is the number of the sizes, from 1, and of the halves.
        halves: the sizes of the left half and of the right one.
    """
    sizes = list(zip(*halves, strict=True))
    starts = [list(itertools.accumulate(each, initial=0))[:-1] for each in sizes]
    named = {"ls": sizes[0], "rs": sizes[1], "lo": starts[0], "ro": starts[1]}
    looked_up = ", ".join(f"({_array(numbers)})[n] AS {name}" for name, numbers in named.items())
    last = f"SELECT n, l, r, {looked_up} FROM ({parts}) AS p OFFSET 0"
    for number in range(ROUNDS):
        one, other = ("l", "r") if number % 2 == 0 else ("r", "l")
        entry = f"({other}o + {other})"
        key = _key(f"{tag}{number}")
        each = (
            f"CASE WHEN n <= {_limit(tag)} THEN substr({_table(tag, number)}, ({entry} * {WIDTH})::int + 1, {WIDTH})"
            f" WHEN n <= {len(SHORT[tag])} THEN substr(sha256({key} || int8send({entry} / {PER_HASH})), ({entry} % {PER_HASH} * {WIDTH})::int + 1, {WIDTH})"
            f" ELSE sha256({key} || int8send({entry})) END"
        )
        moved = f"({one} + {number_of(each)} % {one}s) % {one}s AS {one}"
        last = f"SELECT n, ls, rs, lo, ro, {other}, {moved} FROM ({last}) AS s{number} OFFSET 0"
    return last


def _array(numbers: Iterable[int]) -> str:
    return f"'{{{', '.join(map(str, numbers))}}}'::bigint[]"


def _limit(tag: str) -> str:
    return f"/*{tag}*/0"


def _table(tag: str, number: int) -> str:
    return f"/*{tag}{number}*/NULL::bytea"


def prepared(sql: str) -> str:
    """The same expression for a query of many rows: it takes up to a tenth of a second more at its start, and less for each row."""
    for tag, halves in SHORT.items():
        sql = sql.replace(_limit(tag), str(len(halves)))
        for number in range(ROUNDS):
            hashes = -(-sum(each[-1 - number % 2] for each in halves) // PER_HASH)
            entries = f"string_agg(sha256({_key(f'{tag}{number}')} || int8send(i)), '' ORDER BY i)"
            sql = sql.replace(_table(tag, number), f"(SELECT {entries} FROM generate_series(0, {hashes - 1}) AS i)")
    return sql


def _mixed(value: str) -> str:
    last = f"SELECT left({value}, length({value}) / 2) AS l, substr({value}, length({value}) / 2 + 1) AS r WHERE {value} IS NOT NULL OFFSET 0"
    for number in range(ROUNDS):
        one, other = ("r", "l") if number % 2 == 0 else ("l", "r")
        last = f"SELECT {other}, {_shifted(one, other, number)} AS {one} FROM ({last}) AS s{number} OFFSET 0"
    return f"(SELECT l || r FROM ({last}) AS s)"


def _shifted(shifted: str, key: str, number: int) -> str:
    """The characters, each moved on within its kind by a byte of the hash of the other half."""
    moved = "get_byte(k, ((i - 1) % 32)::int)"
    kinds = (("48 AND 57", 48, 10), ("65 AND 90", 65, 26), ("97 AND 122", 97, 26))
    cases = " ".join(
        f"WHEN ascii(c) BETWEEN {span} THEN chr({first} + (ascii(c) - {first} + {moved}) % {size})"
        for span, first, size in kinds
    )
    cases += f" WHEN ascii(c) >= 192 THEN chr(ascii(c) / 32 * 32 + (ascii(c) + {moved}) % 32)"
    return (
        f"coalesce((SELECT string_agg(CASE {cases} ELSE c END, '' ORDER BY i) FROM string_to_table({shifted}, NULL) WITH ORDINALITY AS c(c, i),"
        f" (SELECT {hashed(key, f'half{number}')} AS k OFFSET 0) AS k), '')"
    )


@cache
def whole_number(value: str, bits: int = 64) -> str:
    """A bijection of whole numbers of so many bits that keeps the sign and the number of digits; 0 and the least one stay."""
    first = _array(each[0] for each in RANGES)
    absolute = f"abs(nullif(({value})::bigint, {-(2 ** (bits - 1))}))"
    ranged = f"SELECT a, width_bucket(a, {first}) AS n FROM (SELECT {absolute} AS a OFFSET 0) AS a OFFSET 0"
    rights = _array(each[2] for each in RANGES)
    parts = f"SELECT n, (a - ({first})[n]) / ({rights})[n] AS l, (a - ({first})[n]) % ({rights})[n] AS r FROM ({ranged}) AS n OFFSET 0"
    moved = _network("number", parts, [each[1:] for each in RANGES])
    masked = f"SELECT sign(({value})::bigint)::int * (({first})[n] + l * rs + r) FROM ({moved}) AS s"
    return f"coalesce(({masked}), ({value})::bigint)"


@cache
def numeric(value: str, scale: int | None) -> str:
    """The same for numbers with so many digits after the point; what a bigint cannot hold becomes other digits.

    Args:
        value: the SQL of the number.
        scale: None where the type says none: a whole number stays one, and of others four digits are kept.
    """
    factor = str(10**scale) if scale is not None else f"CASE WHEN {value} = trunc({value}) THEN 1 ELSE 10000 END"
    special = f"{value} IN ('NaN', 'Infinity', '-Infinity')"
    fits = f"NOT {special} AND abs({value}) < 9e{18 - (4 if scale is None else scale)}"
    masked = f"trim_scale({whole_number(f'trunc({value} * {factor})')}::numeric / {factor})"
    return f"CASE WHEN {fits} THEN {masked} WHEN {special} THEN {value} ELSE {characters(f'({value})::text')}::numeric END"


def real(value: str, exponent: int = 307) -> str:
    """A number of the same power of ten, between those that the type holds with this exponent."""
    fraction = f"{number_of(hashed(f'({value})::text'))} / 72057594037927936.0::float8"
    power = f"least(greatest(floor(log(abs(({value})::numeric))), -{exponent}), {exponent})::float8"
    finite = f"{value} NOT IN ('NaN', 'Infinity', '-Infinity', 0)"
    return f"CASE WHEN {finite} THEN sign({value}) * (1 + 8.9 * {fraction}) * 10 ^ {power} ELSE {value} END"


def uuid(value: str) -> str:
    """A keyed hash, cut to the length of a uuid."""
    return f"encode(substr(sha256({SECRET} || uuid_send({value})), 1, 16), 'hex')::uuid"


def choice(value: str, literals: str, number: int) -> str:
    """Another one of the listed values, by turning the list: two values never become one.

    Args:
        value: the SQL of one of them, or of what is not in the list and becomes its first.
        literals: the SQL of the array.
        number: how many it has.
    """
    turned = f"(SELECT 1 + get_byte(sha256({SECRET} || 'choice'), 0) % {max(number - 1, 1)})"
    return f"CASE WHEN {value} IS NOT NULL THEN ({literals})[(coalesce(array_position({literals}, {value}), 1) - 1 + {turned}) % {number} + 1] END"


def constant(value: str, literal: str) -> str:
    """The same for every value that there is."""
    return f"CASE WHEN {value} IS NOT NULL THEN {literal} END"


def document(value: str, known: str) -> str:
    """A value of the type json or jsonb as jsonb; NULL for json with characters that jsonb cannot hold."""
    return f"({value})" if known == "jsonb" else f"CASE WHEN ({value})::text !~ '{NO_JSONB}' THEN ({value})::jsonb END"


def bytes_(value: str) -> str:
    """A hash of at most as many bytes as the value has."""
    return f"substr(sha256({SECRET} || {value}), 1, octet_length({value}))"


def shifted(value: str, by: str, unit: str) -> str:
    """A date or time, moved by up to five years either way: the same way for the same `by`; towards now where it is near the
    end of what its type holds.
    """
    moved = f"(1 + {number_of(hashed(by, 'shift'))} % 1826)::int"
    if unit != "day":
        moved = f"make_interval(days => {moved}, secs => {number_of(hashed(by, 'seconds'))} % 86400)"
    sign = f"WHEN get_byte({hashed(by, 'sign')}, 0) < 128 THEN {value} + {moved} ELSE {value} - {moved}"
    first, last = (
        f"WHEN {value} < '4700-01-01 BC' THEN {value} + {moved}",
        f"WHEN {value} > '294000-01-01' THEN {value} - {moved}",
    )
    return f"CASE WHEN NOT isfinite({value}) THEN {value} {first} {last} {sign} END"


def year(value: str, known: str) -> str:
    """The first of the year of a date or time, of the type `known`; infinite for one that no timestamp holds, or hardly."""
    first = f"date_trunc('year', {value})" if known != "date" else f"date_trunc('year', ({value})::timestamp)::date"
    return (
        f"CASE WHEN {value} > '294000-01-01' THEN 'infinity' WHEN {value} < '4700-01-01 BC' THEN '-infinity' ELSE {first} END"
    )
