"""The database toolkit of the SkinSpire Clinic hospital management system."""

__version__ = "0.1.0"
