"""What nbgrader runs first on a submission, in the courses that `vivit-edu classroom` makes."""

from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.preprocessors import OverwriteCells


class RestoreCells(OverwriteCells):
    """Puts checks back as they were handed out, and exercises that were deleted, so that they give no points.

    nbgrader restores what was changed, and with `add_missing_cells` also deleted checks, each behind the cell that
    came before it. It gives up on the whole submission where that cell is missing too: so this one comes first.
    """

    def add_missing_grade_cells(self, nb, resources):
        place = 0
        for known in self.gradebook.find_notebook(self.notebook_id, self.assignment_id).source_cells:
            names = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in nb.cells]
            if known.name in names:
                place = names.index(known.name) + 1
            elif known.name.endswith("-check"):  # nbgrader's part
                continue
            else:
                self.log.warning(f"Missing exercise {known.name} encountered, adding to notebook as it was handed out")
                nb.cells.insert(place, self.as_handed_out(known))
                place += 1
        return super().add_missing_grade_cells(nb, resources)

    def as_handed_out(self, known):
        grade = {
            cell.name: cell for cell in self.gradebook.find_notebook(self.notebook_id, self.assignment_id).grade_cells
        }
        new_cell = new_code_cell if known.cell_type == "code" else new_markdown_cell
        grading = {
            "grade_id": known.name,
            "grade": known.name in grade,
            "solution": True,
            "locked": known.locked,
            "task": False,
            "schema_version": 3,
            "checksum": known.checksum,
            "cell_type": known.cell_type,
        }
        if known.name in grade:
            grading["points"] = grade[known.name].max_score
        return new_cell(known.source, metadata={"nbgrader": grading})
