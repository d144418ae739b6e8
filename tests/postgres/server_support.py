"""What the tests of the embedded server share."""

from __future__ import annotations

import os
import sys

import psycopg

from skinspire_db.postgres.cluster import Address

ROOT = sys.platform != "win32" and os.geteuid() == 0


def opened(address: Address) -> psycopg.Connection:
    return psycopg.connect(**address.parameters, dbname="postgres", autocommit=True)
