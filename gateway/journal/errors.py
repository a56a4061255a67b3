"""How the journal fails: the disk, the key or the caller is at fault, and the text says which."""


class JournalError(Exception):
    """The journal cannot do what was asked: what, got, expected, what to do. Nothing accepted was thrown away."""


class JournalFull(JournalError):  # noqa: N818 - a state that passes, not a fault
    """No room, in memory or within the disk budget. Try again after a commit or an acknowledgement."""
