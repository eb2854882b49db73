"""Damage to files, as hypothesis draws it."""

from hypothesis import strategies as st

# where to cut a file off, or which of its bits to turn, as shares of its length
DAMAGE = st.one_of(
    st.floats(0, 0.999), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 7)), min_size=1, max_size=3)
)


def damaged(content, damage):
    """The bytes cut off at a share of them, or with single bits turned."""
    if isinstance(damage, float):
        return content[: int(damage * len(content))]
    content = bytearray(content)
    for share, bit in damage:
        content[int(share * len(content))] ^= 1 << bit
    return bytes(content)
