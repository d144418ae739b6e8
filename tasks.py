"""The root of the Invoke tasks: one collection a module, each in the folder tasks/ beside this file."""

from skinspire_db.tasks import collections

ns = collections(globals())
