"""The phantom's patients, whole: what chapter 00 scrolls through."""

from ..datasets.phantom import phantom_patient  # noqa: F401
