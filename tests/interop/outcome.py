"""What every check of the wire has in common."""


class Refused(Exception):
    """Something is refused: the stable name of the reason, and the place where the canonical scan found it."""

    def __init__(self, reason, place=None):
        super().__init__(reason if place is None else f"{reason} in {place}")
        self.reason = reason
        self.place = place
