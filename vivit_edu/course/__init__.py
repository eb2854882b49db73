"""What the course needs around the lessons: checks, the shape ledger, drawings, sliders, the harness."""
