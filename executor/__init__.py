"""What the three scripts share; it knows no wire (see ARCHITECTURE.md)."""

#: Version of the project, as CHANGELOG.md counts it.
__version__ = "0.1.0"
