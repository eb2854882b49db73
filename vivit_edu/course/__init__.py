"""What notebooks import besides the lessons: checks, predictions, recorded runs, the shape ledger, drawings, sliders."""
