"""How many of what, in words."""


def counted(count: int, thing: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
