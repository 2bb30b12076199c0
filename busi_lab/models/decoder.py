"""Filters of a decoder of five stages, as settings give them."""

from collections.abc import Sequence

from busi_lab.errors import UserError


def five_stages(channels: Sequence[int]) -> tuple[int, ...]:
    """Filters of the stages, the deepest first.

    Raises:
        UserError: they are not five of 1 at least.
    """
    if len(channels) != 5 or min(channels) < 1:
        raise UserError(
            f"model.decoder_channels={list(channels)}: expected null or five numbers, as [256,128,64,32,16]"
        )
    return tuple(channels)
