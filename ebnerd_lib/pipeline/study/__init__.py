"""Do the findings hold on other data, and what are they made of? Refits over bundles, groups, seeds, days and settings.

A **cell** is one configuration on one bundle. It is computed once: its file says from which parameters, modules,
packages and bundle its figures come, and is written when all else is there, so an interrupted study continues where it
stopped. What a cell runs and what only plans or shows are in modules apart, so that a change of the latter computes
nothing anew.
"""
