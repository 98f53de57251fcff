"""From rows to weights: samples, methods, objectives, steps, and where a run can be taken up again."""
