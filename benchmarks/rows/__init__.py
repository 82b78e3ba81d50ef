"""What is measured, one module a group of rows; each has ``measure(context)``."""

NAMES = {
    "slates": True, "features": True, "evaluation": True, "training": True, "factorisation": False, "boosting": False,
    "scoring": True, "run_all": False, "growth": False, "reading": True,
}  # fmt: skip
"""Groups in the order of the report, and whether they take part in a quick run."""
