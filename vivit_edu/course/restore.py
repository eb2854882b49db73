"""The old home of `RestoreCells`: classrooms made by earlier versions name it in their nbgrader_config.py."""

from ..authoring.restore import RestoreCells  # noqa: F401
