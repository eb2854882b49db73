"""What notebooks import besides the lessons: checks, predictions, recorded runs, the ledger, drawings, sliders."""
