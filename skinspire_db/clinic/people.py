"""Invented people: the n-th person of a random seed is the same, byte for byte, on every machine and in every run.

What is drawn for a person comes from a hash of (random seed, kind, number), so
that person 5,000 can be made without making the 4,999 before, and no state can get out of step.
"""

from __future__ import annotations

import hashlib
from datetime import date, timedelta
from typing import Literal, NamedTuple, TypeVar

from skinspire_db.clinic import names

T = TypeVar("T")
Kind = Literal["doctor", "nurse", "receptionist", "pharmacy", "patient"]

TODAY = date(2026, 1, 1)  # ages are counted from here: with the real today no two days would give the same people
ADULT = 18
OLDEST = 90

SPECIALTIES = ("Dermatologist", "Plastic Surgeon", "Aesthetic Physician", "Cosmetic Surgeon", "Cosmetologist")
# (city, state, first three digits of its pin codes, language): the four belong together.
PLACES = (
    ("Bengaluru", "Karnataka", "560", "Kannada"), ("Mumbai", "Maharashtra", "400", "Marathi"),
    ("New Delhi", "Delhi", "110", "Hindi"), ("Chennai", "Tamil Nadu", "600", "Tamil"),
    ("Hyderabad", "Telangana", "500", "Telugu"), ("Kolkata", "West Bengal", "700", "Bengali"),
    ("Ahmedabad", "Gujarat", "380", "Gujarati"), ("Kochi", "Kerala", "682", "Malayalam"),
    ("Jaipur", "Rajasthan", "302", "Hindi"), ("Amritsar", "Punjab", "143", "Punjabi"),
)  # fmt: skip
STREETS = ("Nagar", "Road", "Street", "Marg", "Chowk", "Layout")
# Per 1,000 Indians.
BLOOD_GROUPS = (("O+", 365), ("B+", 345), ("A+", 205), ("AB+", 65), ("O-", 8), ("B-", 6), ("A-", 4), ("AB-", 2))
BLOOD_OF = tuple(group for group, share in BLOOD_GROUPS for _ in range(share))
ALLERGIES = ("none known", "none known", "none known", "penicillin", "latex", "sulfa drugs", "nickel")
CONCERNS = ("acne", "eczema", "psoriasis", "pigmentation", "hair loss", "scars", "rosacea", "warts", "annual check")

# Indian mobile numbers begin with 6 to 9; the last million is left to administrators and to real people.
MOBILE_FIRST, MOBILE_COUNT = 6_000_000_000, 3_999_000_000
MOBILE_STEP = 1_618_034_003  # has no divisor in common with MOBILE_COUNT: every number comes once before any comes twice
KINDS: tuple[Kind, ...] = ("doctor", "nurse", "receptionist", "pharmacy", "patient")


class Person(NamedTuple):
    """An invented person. `code` is the mrn or employee code; `phone` is also the user_id."""

    kind: Kind
    number: int
    key: str
    code: str
    phone: str
    title: str
    first_name: str
    last_name: str
    blood_group: str
    specialization: str | None
    personal_info: str
    contact_info: str
    details: str
    guardian: str | None
    preferences: str


class Draw:
    """Numbers that depend on nothing but what they are drawn for."""

    __slots__ = ("_bits",)

    def __init__(self, seed: int, kind: str, number: int) -> None:
        digest = hashlib.blake2b(f"{seed}/{kind}/{number}".encode()).digest()
        self._bits = int.from_bytes(digest, "big")  # 512 bits; a person needs about 200

    def below(self, limit: int) -> int:
        """The next number, from 0 to below the limit."""
        self._bits, drawn = divmod(self._bits, limit)
        return drawn

    def of(self, choices: tuple[T, ...]) -> T:
        """One of the choices."""
        return choices[self.below(len(choices))]


def person(seed: int, kind: Kind, number: int, born: date | None = None) -> Person:
    """The person with that number, counted from 1, in that random seed; of another age when `born` says so.

    JSON is written by templates, in a third of the time of json.dumps: no name or place has a character to be escaped.
    """
    draw = Draw(seed, kind, number)
    female = draw.below(2) == 0
    first, last = draw.of(names.FEMALE if female else names.MALE), draw.of(names.LAST)
    age_days = draw.below(OLDEST * 365) if kind == "patient" else (25 + draw.below(40)) * 365 + draw.below(365)
    if born is not None:
        age_days = (TODAY - born).days
    minor = age_days < ADULT * 365
    city, state, pin, language = draw.of(PLACES)
    phone = str(MOBILE_FIRST + (number * len(KINDS) + KINDS.index(kind)) * MOBILE_STEP % MOBILE_COUNT)
    email = "null" if minor or draw.below(5) == 0 else f'"{first}.{last}.{number}@example.in"'.lower().replace(" ", "")
    title = "Dr." if kind == "doctor" else ("Miss" if female else "Master") if minor else "Ms." if female else "Mr."
    gender = "other" if draw.below(100) == 0 else "female" if female else "male"
    born_on = (TODAY - timedelta(days=age_days)).isoformat()
    languages = '","'.join(sorted({language, "English" if draw.below(3) else "Hindi"}))
    marital_status = "single" if minor or draw.below(3) == 0 else "married"
    personal = (
        f'{{"gender":"{gender}","date_of_birth":"{born_on}","languages":["{languages}"],"marital_status":"{marital_status}"}}'
    )
    street = f"{1 + draw.below(400)}, {draw.of(names.LAST)} {draw.of(STREETS)}"
    contact = (
        f'{{"phone":"{phone}","email":{email},"address":{{"street":"{street}",'
        f'"city":"{city}","state":"{state}","pincode":"{pin}{1 + draw.below(99):03}","country":"India"}}}}'
    )
    guardian = None
    if minor or draw.below(2):
        relation = draw.of(("mother", "father")) if minor else draw.of(("spouse", "sibling", "friend"))
        other = draw.of(names.FEMALE if relation == "mother" else names.MALE)
        guardian = (
            f'{{"name":"{other} {last}","relation":"{relation}","guardian":{_json(minor)},'
            f'"phone":"{MOBILE_FIRST + draw.below(MOBILE_COUNT)}"}}'
        )
    if kind == "patient":
        details = f"Allergies: {draw.of(ALLERGIES)}. Seen for {draw.of(CONCERNS)}."
    else:
        registration = f"{pin}-{10000 + draw.below(90000)}"
        details = f'{{"registration":"{registration}","years_of_practice":{max(1, age_days // 365 - 25)}}}'
    return Person(
        kind, number, _uuid(draw.below(1 << 128)), f"{code_prefix(kind)}{number:06}", phone, title,
        first, last, draw.of(BLOOD_OF), SPECIALTIES[(number - 1) % len(SPECIALTIES)] if kind == "doctor" else None,
        personal, contact, details, guardian, f'{{"language":"{language}","sms":{_json(draw.below(4) > 0)}}}',
    )  # fmt: skip


def code_prefix(kind: Kind) -> str:
    """What the mrn or employee code of an invented person begins with: T000001, DOC000001."""
    return "T" if kind == "patient" else kind[:3].upper()


def _json(value: bool) -> str:
    return "true" if value else "false"


def _uuid(drawn: int) -> str:
    """A random UUID's text, of version 4, from 128 bits."""
    text = f"{drawn & ~(0xF << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
