"""Drawings by code, on the course's running example: a clip, its tubelets in colour, and the tokens made of them.

`pieces` has what the drawings are put together from; each chapter's drawings are a module next to it.
"""

from .architectures import architecture, architectures  # noqa: F401
